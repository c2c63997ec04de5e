use super::*;
use crate::experiment::Silent;

#[test]
fn floods_cost_and_reach_what_the_graph_says_and_replay() {
    for shape in [Shape::Regular, Shape::PowerLaw] {
        let experiment = Flooding {
            nodes: 150,
            degree: 4,
            shape,
            files: 5,
            contents: 500,
            questions: 10,
        };
        let report = experiment.run(3, &mut Silent).expect("good options");
        assert!(report.holds(), "{:#?}", report.checks);
        let again = experiment.run(3, &mut Silent).expect("good options");
        assert_eq!(report.json(), again.json());
    }
}
