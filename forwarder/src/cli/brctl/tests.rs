use proptest::prelude::*;

use super::*;

fn words(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn said(line: &str) -> (Done, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let done = run(OsStr::new("brctl"), &words(line), &mut out, &mut err);
    (done, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[test]
fn it_is_called_by_its_name_or_as_a_subcommand() {
    let by = |line: &str| called(&words(line)).map(|(name, rest)| (name.to_owned(), rest.to_vec()));
    assert_eq!(by("brctl show -h"), Some(("brctl".into(), words("show -h"))));
    assert_eq!(by("/usr/sbin/brctl"), Some(("/usr/sbin/brctl".into(), vec![])));
    assert_eq!(by("trestle brctl -- show"), Some(("brctl".into(), words("-- show"))));
    assert_eq!(by("trestle fdb brctl"), None);
    assert_eq!(by("/opt/brctl/trestle"), None);
    assert_eq!(by(""), None);
}

#[test]
fn too_few_words_are_said_on_standard_output() {
    let usage = "Incorrect number of arguments for command\nUsage: brctl addbr <bridge>\t\tadd bridge\n";
    assert_eq!(said("addbr"), (Err(Failed), usage.into(), String::new()));
}

#[test]
fn reasons_are_the_c_librarys_words() {
    assert_eq!(reason(Errno::EOPNOTSUPP), "Operation not supported");
    assert_eq!(reason(Errno::ENODEV), "No such device");
}

#[test]
fn with_posixly_correct_options_end_at_the_first_word() {
    let read = |posix| options::read(OsStr::new("brctl"), &words("show -h"), posix);
    assert_eq!(read(true), Asked::Words { words: words("show -h"), json: false });
    assert_eq!(read(false), Asked::Help);
}

proptest! {
    /// Whatever the words: an answer, and none of those that are no options lost.
    #[test]
    fn words_behind_two_dashes_are_kept_as_they_are(
        before in prop::collection::vec("[a-z0-9]{0,4}", 0..4),
        after in prop::collection::vec("-{0,2}[a-zA-Z=]{0,4}", 0..4),
    ) {
        let dashes = ["--".to_owned()];
        let line: Vec<OsString> = before.iter().chain(&dashes).chain(&after).map(OsString::from).collect();
        let kept: Vec<OsString> = before.iter().chain(&after).map(OsString::from).collect();
        let asked = options::read(OsStr::new("brctl"), &line, false);
        prop_assert_eq!(asked, Asked::Words { words: kept, json: false });
    }

    #[test]
    fn any_bytes_are_options_or_words(
        bytes in prop::collection::vec(prop::collection::vec(1u8..=255, 0..5), 0..5),
    ) {
        use std::os::unix::ffi::OsStringExt;
        let line: Vec<OsString> = bytes.into_iter().map(OsString::from_vec).collect();
        if let Asked::Words { words, .. } = options::read(OsStr::new("brctl"), &line, false) {
            prop_assert!(words.len() <= line.len());
        }
    }
}
