//! Linear probes (Alain and Bengio 2016): whether a label can be read off a residual stream by a line. A probe of
//! shuffled labels says how much of its accuracy is the probe's own (Hewitt and Liang 2019).

use super::InterpError;
use flipside_core::Seed;
use rand::RngExt;
use tch::{Kind, Tensor};

/// How probes are fitted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeSettings {
    /// The weight of ½ ‖w‖² in the loss, whose other part is the sum of −log p over the examples. Inputs are
    /// standardised.
    pub l2: f64,
    /// The share of examples that is held out, 0 to 1.
    pub held_out: f64,
    /// Decides what is held out, and how labels are shuffled.
    pub seed: u64,
}

impl Default for ProbeSettings {
    fn default() -> ProbeSettings {
        ProbeSettings { l2: 1.0, held_out: 0.3, seed: 0 }
    }
}

/// A probe of one residual stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Share of held-out labels that it predicts.
    pub accuracy: f64,
    /// The same for a probe that was fitted to shuffled labels, on held-out labels that were shuffled, too.
    pub shuffled: f64,
    /// What it multiplies the stream by, `[d]`.
    pub weight: Vec<f64>,
    /// What it adds.
    pub bias: f64,
}

/// Logistic regression with an L2 penalty, by Newton's method: weights `[n]` and bias of inputs `[examples, n]` and
/// labels `[examples]` (0 or 1), all f64.
pub(super) fn logistic(x: &Tensor, y: &Tensor, l2: f64) -> (Tensor, f64) {
    let size = x.size();
    let (count, n) = (size[0], size[1]);
    let options = (Kind::Double, x.device());
    let x = Tensor::cat(&[x, &Tensor::ones([count, 1], options)], 1);
    // The bias has no penalty, only enough to keep the Hessian regular where all labels are alike.
    let penalty = Tensor::cat(&[Tensor::full([n], l2, options), Tensor::full([1], 1e-6, options)], 0);
    let mut w = Tensor::zeros([n + 1], options);
    for _ in 0..50 {
        let p = x.matmul(&w).sigmoid();
        let gradient = x.tr().matmul(&(&p - y)) + &penalty * &w;
        let curvature = (&p - p.square()).unsqueeze(1);
        let hessian = x.tr().matmul(&(&x * curvature)) + Tensor::diag_embed(&penalty, 0, 0, 1);
        let step = Tensor::linalg_solve(&hessian, &gradient, true);
        let loss = |w: &Tensor| {
            let z = x.matmul(w);
            let likelihood = (z.softplus() - y * &z).sum(Kind::Double);
            (likelihood + (w.square() * &penalty).sum(Kind::Double) * 0.5).double_value(&[])
        };
        // A full step of Newton's can go too far where the labels are separable; half of it is tried then.
        let (before, mut share) = (loss(&w), 1.0);
        while share > 1e-3 && loss(&(&w - &step * share)) > before {
            share *= 0.5;
        }
        w = &w - &step * share;
        if step.abs().max().double_value(&[]) * share < 1e-9 {
            break;
        }
    }
    let bias = w.double_value(&[n]);
    (w.narrow(0, 0, n), bias)
}

/// One probe for each residual stream. `streams` is `[examples, sites, d]`, as of
/// [`last_streams`](super::last_streams). `on_site` is called before each with the number of probes done; if it
/// returns true, the work is cancelled.
///
/// # Errors
///
/// Labels of another number, too few examples of either label, settings out of range, or cancellation.
pub fn probes(
    streams: &Tensor,
    labels: &[bool],
    settings: &ProbeSettings,
    on_site: &mut dyn FnMut(usize) -> bool,
) -> Result<Vec<Probe>, InterpError> {
    let refuse = |reason: String| Err(InterpError::Data(reason));
    let count = labels.len();
    if streams.size()[0] as usize != count {
        return refuse(format!("There are {} examples and {count} labels.", streams.size()[0]));
    }
    if !(settings.held_out > 0.0 && settings.held_out < 1.0 && settings.l2 > 0.0 && settings.l2.is_finite()) {
        return refuse("The held-out share has to be between 0 and 1, and the penalty above 0.".to_owned());
    }
    let positive = labels.iter().filter(|&&label| label).count();
    if positive.min(count - positive) < 4 {
        return refuse(format!(
            "Of {count} examples {positive} have the label; a probe needs at least 4 with it and 4 without."
        ));
    }
    let mut stream = Seed(settings.seed).stream("interp.probe");
    let mut shuffled = |n: usize| {
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).rev().for_each(|i| order.swap(i, stream.random_range(0..=i)));
        order
    };
    let order = shuffled(count);
    let held_out = ((count as f64 * settings.held_out).round() as usize).clamp(1, count - 1);
    let (test, train) = order.split_at(held_out);
    let other = shuffled(count);
    let of = |places: &[usize], label: &dyn Fn(usize) -> bool| {
        let numbers: Vec<f64> = places.iter().map(|&i| f64::from(u8::from(label(i)))).collect();
        Tensor::from_slice(&numbers)
    };
    let rows = |places: &[usize]| Tensor::from_slice(&places.iter().map(|&i| i as i64).collect::<Vec<_>>());
    tch::no_grad(|| {
        let mut all = Vec::new();
        for site in 0..streams.size()[1] {
            if on_site(site as usize) {
                return Err(InterpError::Cancelled);
            }
            let x = streams.select(1, site).to_device(tch::Device::Cpu).to_kind(Kind::Double);
            let [seen, unseen] = [train, test].map(|places| x.index_select(0, &rows(places)));
            let mean = seen.mean_dim(0, false, Kind::Double);
            let deviation = (&seen - &mean).square().mean_dim(0, false, Kind::Double).sqrt().clamp_min(1e-6);
            let [seen, unseen] = [seen, unseen].map(|x| (x - &mean) / &deviation);
            let fit = |label: &dyn Fn(usize) -> bool| {
                let (w, bias) = logistic(&seen, &of(train, label), settings.l2);
                let right = (unseen.matmul(&w) + bias).gt(0.0).eq_tensor(&of(test, label).gt(0.5));
                (right.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]), w / &deviation, bias)
            };
            let (accuracy, weight, bias) = fit(&|i| labels[i]);
            let (by_chance, _, _) = fit(&|i| labels[other[i]]);
            let bias = bias - weight.dot(&mean).double_value(&[]);
            let weight = Vec::<f64>::try_from(&weight).unwrap_or_default();
            all.push(Probe { accuracy, shuffled: by_chance, weight, bias });
        }
        Ok(all)
    })
}
