//! Which clients of a simulation dropped out, and why.

use std::collections::BTreeMap;
use std::fmt::Write;

use skep_protocol::ClientId;
use skep_server::record::RoundRecord;

use crate::page::{count, escaped};

/// The reasons, and the clients that dropped out most often. `totals` are clients by reason, over all rounds.
pub(super) fn html(totals: &BTreeMap<String, u64>, records: &[RoundRecord]) -> String {
    let mut rows = String::new();
    let mut reasons: Vec<_> = totals.iter().collect();
    reasons.sort_by_key(|(_, clients)| std::cmp::Reverse(**clients));
    for (reason, clients) in reasons {
        let rounds = records.iter().filter(|record| record.losses().any(|(of, _)| of == *reason)).count();
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            rows,
            "<tr><th>{}</th><td>{} times, in {} rounds</td></tr>",
            escaped(reason),
            count(*clients),
            count(rounds as u64)
        );
    }
    let mut often: BTreeMap<ClientId, BTreeMap<&str, u32>> = BTreeMap::new();
    for (reason, clients) in records.iter().flat_map(|record| &record.dropped) {
        for &client in clients {
            *often.entry(client).or_default().entry(reason).or_default() += 1;
        }
    }
    let clients = often.len();
    let mut often: Vec<_> = often.into_iter().collect();
    often.sort_by_key(|(client, reasons)| (std::cmp::Reverse(reasons.values().sum::<u32>()), *client));
    let mut worst = String::new();
    for (client, reasons) in often.into_iter().take(MOST) {
        let reasons: Vec<_> = reasons.iter().map(|(reason, times)| format!("{times} × {reason}")).collect();
        let _ = writeln!(worst, "<tr><th>{client}</th><td>{}</td></tr>", escaped(&reasons.join(", ")));
    }
    format!(
        "<div class=\"grid wide\">\n<div class=\"card\"><h3>Reasons</h3><table class=\"facts\">\n{rows}</table></div>\n\
         <div class=\"card\"><h3>Most often, of {} clients</h3><table class=\"facts\">\n{worst}</table></div>\n</div>\n",
        count(clients as u64)
    )
}

/// Clients that are named.
const MOST: usize = 10;
