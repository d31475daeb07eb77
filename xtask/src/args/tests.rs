use super::Args;

#[test]
fn words_flags_and_values_in_any_order() {
    let mut args = Args::of(&["test", "--runtime", "mio", "--keep"]);
    assert_eq!(args.word().as_deref(), Some("test"));
    assert!(args.flag("--keep"));
    assert_eq!(args.value::<String>("--runtime").unwrap().as_deref(), Some("mio"));
    assert_eq!(args.word(), None);
    assert!(args.finish().is_ok());
}

#[test]
fn a_flag_without_its_value_and_a_stray_word_are_errors() {
    let mut args = Args::of(&["--count"]);
    assert!(args.value::<u32>("--count").is_err());
    let mut args = Args::of(&["--count", "many"]);
    assert!(args.value::<u32>("--count").is_err());
    let args = Args::of(&["--frobnicate"]);
    assert!(args.finish().is_err());
    let mut args = Args::of(&[]);
    assert!(args.required::<u32>("--count").is_err());
}
