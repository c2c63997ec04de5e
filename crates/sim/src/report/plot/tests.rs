use super::*;

#[test]
fn steps_are_nice() {
    for (raw, step) in [
        (0.9, 1.0),
        (1.1, 2.0),
        (2.5, 5.0),
        (7.0, 10.0),
        (0.02, 0.02),
        (300.0, 500.0),
    ] {
        assert!((nice_step(raw) / step - 1.0).abs() < 1e-9, "{raw}");
    }
}

#[test]
fn a_scale_covers_its_values_and_marks_them() {
    let scale = Scale::new(
        &Axis::linear("y"),
        [3.0, 17.2].into_iter(),
        true,
        0.0,
        100.0,
    );
    assert_eq!((scale.low, scale.high), (0.0, 20.0));
    let labels: Vec<_> = scale.ticks().into_iter().map(|(_, label)| label).collect();
    assert_eq!(labels, ["0", "5", "10", "15", "20"]);
    let log = Scale::new(
        &Axis::log2("n"),
        [128.0, 1024.0].into_iter(),
        false,
        0.0,
        90.0,
    );
    assert_eq!(log.at(256.0), Some(30.0));
    assert_eq!(log.at(0.0), None);
}

#[test]
fn labels_are_short() {
    for (value, text) in [
        (0.0, "0"),
        (1.5, "1.5"),
        (20_000.0, "20k"),
        (1_048_576.0, "1.049M"),
    ] {
        assert_eq!(short(value), text);
    }
}
