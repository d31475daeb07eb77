use super::{Cell, DOZEN, TESTS};
use crate::lab::nat::Nat;

#[test]
fn cells_are_read_as_people_type_them() {
    let cell = Cell {
        a: Nat::Linux,
        b: Nat::CarrierGradeSymmetric,
    };
    for text in [
        "linux×cgnat-symmetric",
        "linux:cgnat-symmetric",
        "linux × cgnat-symmetric",
    ] {
        assert_eq!(text.parse::<Cell>().unwrap(), cell, "{text}");
    }
    assert!("linux".parse::<Cell>().is_err());
    assert!("linux:cone".parse::<Cell>().is_err());
}

#[test]
fn tests_are_called_after_their_cells() {
    assert!(TESTS.len() >= DOZEN.len());
    for (cell, (name, _)) in DOZEN.iter().zip(TESTS) {
        let expected = format!("{}_and_{}", cell.a, cell.b).replace('-', "_");
        assert_eq!(*name, expected);
    }
}
