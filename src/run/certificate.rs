//! The part of a run that keeps when the server's certificate expires, and announces that in time.

use super::Run;
use crate::policy::expiry;
use crate::state::pause::{self, Current};
use crate::state::time::Time;
use crate::text::date;

/// Certificates of one server whose announcements are remembered: several machines can answer at one name.
const MOST_CERTIFICATES: usize = 8;

impl Run<'_> {
    /// Keeps when the certificate of the last check expires, and announces that if it is due. Not where it cannot be
    /// written down: it would be announced in every run.
    pub(super) async fn note_certificate(&mut self) {
        let expires = self.checker.certificate_expires().map(Time);
        if expires.is_some() || self.settings.url.scheme() == "http" {
            self.state.state.certificate_expires = expires;
        }
        let Some(expires) = expires.filter(|_| !self.state.is_unusable()) else {
            return;
        };
        let now = Time::now();
        let announced = &self.state.state.certificates_announced;
        let before = announced.get(&expires).copied();
        let Some(days) = expiry::due(self.settings.cert_warn_days, expires, before, now) else {
            return;
        };
        let asked = pause::asked(&self.settings.state_file(".pause"), now).await;
        if let Current::Paused(_) | Current::Inhibited(_) = asked.current {
            return;
        }
        let announced = &mut self.state.state.certificates_announced;
        announced.retain(|expires, _| *expires > now);
        announced.insert(expires, days);
        while announced.len() > MOST_CERTIFICATES {
            let mut others = announced.keys().rev().filter(|other| **other != expires);
            let Some(last) = others.next().copied() else {
                break;
            };
            announced.remove(&last);
        }
        self.announce_expiry(expires);
    }

    fn announce_expiry(&mut self, expires: Time) {
        let days = expiry::days_left(expires, Time::now());
        let date = date(expires.0);
        let text = match days {
            1 => format!("The server's certificate expires in 1 day, on {date}"),
            days => format!("The server's certificate expires in {days} days, on {date}"),
        };
        self.journal.warning(&text);
        self.queue_expiring(text);
    }
}
