//! The tracker's numbers as JSON (`/stats`) and for Prometheus (`/metrics`).

use super::stats::{ServerStats, Traffic};
use std::fmt::Write as _;

const INFALLIBLE: &str = "writing to a string cannot fail";

/// One JSON object.
pub(super) fn json(stats: &ServerStats) -> String {
    let c = &stats.census;
    let mut out = format!(
        "{{\"uptime_secs\":{},\"torrents_v4\":{},\"torrents_v6\":{},\"peers_v4\":{},\"peers_v6\":{},\"peers_overlay\":{},\"seeders\":{},",
        stats.uptime_secs,
        c.torrents_v4,
        c.torrents_v6,
        c.peers_v4,
        c.peers_v6,
        c.peers_overlay,
        c.seeders
    );
    let object = |out: &mut String, name: &str, traffic: &Traffic| {
        write!(out, "\"{name}\":{{").expect(INFALLIBLE);
        for (n, (field, value)) in traffic.fields().into_iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(out, "{comma}\"{field}\":{value}").expect(INFALLIBLE);
        }
        out.push('}');
    };
    object(&mut out, "total", &stats.total);
    out.push(',');
    object(&mut out, "last_minute", &stats.last_minute);
    out.push_str("}\n");
    out
}

/// Prometheus' text format.
pub(super) fn metrics(stats: &ServerStats) -> String {
    let c = &stats.census;
    let mut out = String::new();
    let mut gauge = |name: &str, help: &str, samples: &[(&str, u64)]| {
        writeln!(out, "# HELP shoal_tracker_{name} {help}").expect(INFALLIBLE);
        writeln!(out, "# TYPE shoal_tracker_{name} gauge").expect(INFALLIBLE);
        for (labels, value) in samples {
            writeln!(out, "shoal_tracker_{name}{labels} {value}").expect(INFALLIBLE);
        }
    };
    let (v4, v6) = ("{family=\"v4\"}", "{family=\"v6\"}");
    gauge(
        "uptime_seconds",
        "Time since the start.",
        &[("", stats.uptime_secs)],
    );
    gauge(
        "torrents",
        "Torrents with peers.",
        &[(v4, c.torrents_v4 as u64), (v6, c.torrents_v6 as u64)],
    );
    gauge(
        "peers",
        "Peers in all swarms.",
        &[(v4, c.peers_v4), (v6, c.peers_v6)],
    );
    gauge(
        "overlay_peers",
        "Those of all peers that told an overlay address.",
        &[("", c.peers_overlay)],
    );
    gauge("seeders", "Peers that have everything.", &[("", c.seeders)]);
    for (field, value) in stats.total.fields() {
        writeln!(out, "# TYPE shoal_tracker_{field}_total counter").expect(INFALLIBLE);
        writeln!(out, "shoal_tracker_{field}_total {value}").expect(INFALLIBLE);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_name_every_number() {
        let mut stats = ServerStats::default();
        stats.census.peers_v4 = 12;
        stats.total.udp_announces = 34;
        let json = json(&stats);
        assert!(json.starts_with("{\"uptime_secs\":0,") && json.ends_with("}}\n"));
        assert!(json.contains("\"peers_v4\":12") && json.contains("\"udp_announces\":34"));
        let metrics = metrics(&stats);
        assert!(metrics.contains("\nshoal_tracker_peers{family=\"v4\"} 12\n"));
        assert!(metrics.contains("\nshoal_tracker_udp_announces_total 34\n"));
    }
}
