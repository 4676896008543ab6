//! Connections per pod over time, as an SVG picture: a pure function of a recording.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::recording::Recording;

const SIZE: (f64, f64) = (860.0, 380.0);
/// Left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (52.0, 44.0, 20.0, 44.0);
/// Told apart also by those who see few colours; pods before the change are the first ones.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#555555"];
/// Seconds shown before the change.
const BEFORE: f64 = 2.0;

struct Scale {
    end: f64,
    most: f64,
}

impl Scale {
    fn x(&self, at: f64) -> f64 {
        let share = (at + BEFORE) / (self.end + BEFORE);
        MARGIN.0 + share.clamp(0.0, 1.0) * (SIZE.0 - MARGIN.0 - MARGIN.2)
    }

    fn y(&self, count: f64) -> f64 {
        SIZE.1 - MARGIN.3 - count / self.most * (SIZE.1 - MARGIN.1 - MARGIN.3)
    }
}

/// Draws a recording.
pub fn svg(recording: &Recording) -> String {
    let pods: BTreeSet<&String> =
        recording.samples.iter().flat_map(|sample| sample.by_pod.keys()).collect();
    let last_moment = recording.story.last().map_or(1.0, |moment| moment.at);
    let counts = recording.samples.iter().flat_map(|sample| sample.by_pod.values());
    let most = counts.copied().max().unwrap_or(1).max(1);
    let scale = Scale { end: last_moment.max(1.0) + 1.0, most: (most as f64 * 1.1).ceil() };
    let (width, height) = SIZE;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>Connections per pod during a deploy</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    axes(&mut out, &scale, recording);
    for (number, pod) in pods.iter().enumerate() {
        line(&mut out, &scale, recording, pod, COLOURS[number % COLOURS.len()]);
        legend(&mut out, number, pod);
    }
    out.push_str("</svg>\n");
    out
}

fn axes(out: &mut String, scale: &Scale, recording: &Recording) {
    let (left, right) = (MARGIN.0, SIZE.0 - MARGIN.2);
    let bottom = SIZE.1 - MARGIN.3;
    for count in ticks(scale.most) {
        let y = scale.y(count);
        let _ = writeln!(
            out,
            "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#e4e4e4\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#444\">{count}</text>",
            left - 6.0,
            y + 4.0
        );
    }
    for second in ticks(scale.end) {
        let x = scale.x(second);
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {bottom}v4\" stroke=\"#444\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#444\">{second}</text>",
            bottom + 17.0
        );
    }
    let mean = recording.clients as f64 / recording.replicas.max(1) as f64;
    let _ = writeln!(
        out,
        "<path d=\"M{left} {bottom}H{right}\" stroke=\"#444\"/>\
         <path d=\"M{left} {0:.1}H{right}\" stroke=\"#999\" stroke-dasharray=\"4 4\"/>\
         <text x=\"{right}\" y=\"{1:.1}\" text-anchor=\"end\" fill=\"#777\">mean</text>\
         <text x=\"{right}\" y=\"{2}\" text-anchor=\"end\" fill=\"#444\">seconds since kubectl apply</text>",
        scale.y(mean),
        scale.y(mean) - 5.0,
        SIZE.1 - 10.0
    );
}

/// A step for each change of a pod's clients, from its first client to its last.
fn line(out: &mut String, scale: &Scale, recording: &Recording, pod: &str, colour: &str) {
    let mut path = String::new();
    let mut before = 0;
    for sample in &recording.samples {
        let count = sample.by_pod.get(pod).copied().unwrap_or(0);
        let (x, y) = (scale.x(sample.at), scale.y(count as f64));
        if path.is_empty() {
            let _ = write!(path, "M{x:.1} {y:.1}");
        } else if before != 0 || count != 0 {
            let _ = write!(path, "H{x:.1}V{y:.1}");
        } else {
            let _ = write!(path, "M{x:.1} {y:.1}");
        }
        before = count;
    }
    if before != 0 {
        let _ = write!(path, "H{:.1}", scale.x(scale.end));
    }
    let _ =
        writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
}

fn legend(out: &mut String, number: usize, pod: &str) {
    let x = MARGIN.0 + 100.0 * number as f64;
    let _ = writeln!(
        out,
        "<path d=\"M{x} 22h18\" stroke=\"{}\" stroke-width=\"3\"/>\
         <text x=\"{}\" y=\"26\" fill=\"#222\">{}</text>",
        COLOURS[number % COLOURS.len()],
        x + 24.0,
        escaped(pod)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Round numbers from 0 up to `most`, not more than ten.
fn ticks(most: f64) -> impl Iterator<Item = f64> {
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
    let step = step.into_iter().find(|step| most / step <= 10.0).unwrap_or(5000.0);
    (0..=10).map(move |n| f64::from(n) * step).take_while(move |tick| *tick <= most)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::recording::Sample;

    fn sample(at: f64, counts: &[(&str, usize)]) -> Sample {
        let by_pod: BTreeMap<String, usize> =
            counts.iter().map(|(pod, count)| ((*pod).to_owned(), *count)).collect();
        Sample { at, by_pod }
    }

    #[test]
    fn each_pod_has_a_line_and_a_name() {
        let samples = vec![
            sample(-1.0, &[("a", 4)]),
            sample(3.0, &[("a", 2), ("b<", 2)]),
            sample(5.0, &[("b<", 4)]),
        ];
        let recording = Recording { clients: 4, replicas: 1, samples, ..Recording::default() };
        let picture = svg(&recording);
        assert_eq!(picture.matches("stroke-width=\"2\"").count(), 2, "{picture}");
        assert!(picture.contains(">b&lt;</text>") && !picture.contains("b<<"), "{picture}");
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }

    #[test]
    fn nothing_recorded_is_still_a_picture() {
        assert!(!svg(&Recording::default()).contains("NaN"));
    }

    #[test]
    fn ticks_are_few_and_round() {
        assert_eq!(ticks(22.0).collect::<Vec<_>>(), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert!(ticks(9_999.0).count() <= 11);
    }
}
