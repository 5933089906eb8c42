//! The grid of loads: how large a payload, how many callers, by which way.

use bytes::Bytes;

use super::report::Target;

/// The way a call takes to the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Direct,
    Nginx,
    Chain,
    Local,
    Forward,
    Event,
}

/// What is sent along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    Small,
    Large,
}

/// How many callers there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    Callers(usize),
    Paced,
}

/// One load with one payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) payload: Payload,
    pub(super) load: Load,
}

/// What a cell says of Hearth beside nginx.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison {
    pub(super) ours: Way,
    pub(super) reference: Way,
    /// What the names of its rows begin with.
    prefix: &'static str,
}

/// A warm call on the node that was called, beside one nginx.
pub(super) const WARM: Comparison = Comparison {
    ours: Way::Local,
    reference: Way::Nginx,
    prefix: "warm",
};

/// A call that the node forwards, beside the chain of two.
pub(super) const FORWARD: Comparison = Comparison {
    ours: Way::Forward,
    reference: Way::Chain,
    prefix: "forward",
};

/// An `http` event that goes to a webhook, beside one nginx before the same upstream.
pub(super) const HTTP_EVENT: Comparison = Comparison {
    ours: Way::Event,
    reference: Way::Nginx,
    prefix: "http_event",
};

/// All that is compared.
pub(super) const COMPARISONS: [Comparison; 3] = [WARM, FORWARD, HTTP_EVENT];

impl Way {
    pub(super) const ALL: [Self; 6] = [
        Self::Direct,
        Self::Nginx,
        Self::Chain,
        Self::Local,
        Self::Forward,
        Self::Event,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Chain => "nginx, TLS, nginx",
            Self::Local => "node",
            Self::Forward => "node, TLS, node",
            Self::Event => "http event",
        }
    }
}

impl Payload {
    /// JSON of that many bytes.
    pub(super) fn bytes(self) -> Bytes {
        let len = match self {
            Self::Small => 100,
            Self::Large => 100 * 1024,
        };
        let frame = br#"{"text":""}"#.len();
        format!(r#"{{"text":"{}"}}"#, "x".repeat(len - frame)).into()
    }

    fn label(self) -> &'static str {
        match self {
            Self::Small => "100 B",
            Self::Large => "100 KiB",
        }
    }
}

impl Cell {
    /// Every cell, the ones with targets first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let loads = [
            Load::Callers(1),
            Load::Callers(16),
            Load::Callers(64),
            Load::Paced,
        ];
        [Payload::Small, Payload::Large]
            .into_iter()
            .flat_map(move |payload| loads.map(|load| Self { payload, load }))
    }

    pub(super) fn label(self) -> String {
        match self.load {
            Load::Callers(callers) => format!("{}, {callers} at once", self.payload.label()),
            Load::Paced => format!("{}, paced", self.payload.label()),
        }
    }
}

impl Comparison {
    /// The name of the row.
    pub(super) fn name(self, cell: Cell) -> String {
        let way = self.prefix;
        let payload = match cell.payload {
            Payload::Small => "",
            Payload::Large => "100k_",
        };
        match cell.load {
            Load::Callers(1) => format!("{way}_{payload}c1_added"),
            Load::Callers(callers) => format!("{way}_{payload}c{callers}_rps"),
            Load::Paced => format!("{way}_{payload}paced_p99"),
        }
    }

    pub(super) fn target(self, cell: Cell) -> Option<Target> {
        if cell.payload == Payload::Large {
            return None;
        }
        match (self.ours, cell.load) {
            (Way::Local, Load::Callers(1)) => Some(Target::RatioAtMost(1.2)),
            (Way::Forward | Way::Event, Load::Callers(1)) => Some(Target::RatioAtMost(1.3)),
            (Way::Local | Way::Forward, Load::Callers(64)) => Some(Target::RatioAtLeast(0.8)),
            (Way::Event, Load::Callers(64)) => Some(Target::RatioAtLeast(0.7)),
            (Way::Local, Load::Paced) => Some(Target::RatioAtMost(1.5)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_length() {
        assert_eq!(Payload::Small.bytes().len(), 100);
        assert_eq!(Payload::Large.bytes().len(), 102_400);
    }

    #[test]
    fn rows_have_the_names_that_scripts_read() {
        let named = |comparison: Comparison| {
            let targeted = Cell::all().filter(move |cell| comparison.target(*cell).is_some());
            targeted
                .map(|cell| comparison.name(cell))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            named(WARM),
            ["warm_c1_added", "warm_c64_rps", "warm_paced_p99"]
        );
        assert_eq!(named(FORWARD), ["forward_c1_added", "forward_c64_rps"]);
        assert_eq!(
            named(HTTP_EVENT),
            ["http_event_c1_added", "http_event_c64_rps"]
        );
    }
}
