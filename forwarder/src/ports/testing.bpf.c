// Two small programs for tests: all frames into AF_XDP sockets, and no frame of the host out of an interface.
#define SEC(name) __attribute__((section(name), used))

static long (*const bpf_redirect_map)(void *map, unsigned long key, unsigned long flags) = (void *)51;

struct xdp_md {
    unsigned data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct {
    int (*type)[17]; // BPF_MAP_TYPE_XSKMAP
    int (*max_entries)[8];
    unsigned *key;
    unsigned *value;
} sockets SEC(".maps");

SEC("xdp")
int steer(struct xdp_md *frame)
{
    return bpf_redirect_map(&sockets, frame->rx_queue_index, 2 /* else XDP_PASS */);
}

SEC("classifier")
int refuse(void *frame)
{
    return 2; // TC_ACT_SHOT, TCX_DROP
}

char _license[] SEC("license") = "Dual MIT/GPL";
