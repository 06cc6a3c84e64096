//! Every kind of lanes against double precision.

use super::*;
use flipside_core::Seed;
use rand::RngExt;

fn hopper() -> Arc<Model> {
    let text = include_str!("../../../../../envs/hopper.xml");
    Arc::new(Model::from_mjcf(text, "hopper.xml").unwrap())
}

/// The states of 21 worlds after half a second of the same controls.
fn run<L: Lanes>() -> Vec<f64> {
    let model = hopper();
    let mut lanes = LanesBackend::<L>::new(model.clone(), 21, Some(2)).unwrap();
    let mut stream = Seed(3).stream("controls");
    for _ in 0..60 {
        let ctrl: Vec<f64> = (0..21 * model.nu()).map(|_| stream.random_range(-1.0..1.0)).collect();
        lanes.step(&ctrl, 4).unwrap();
    }
    assert_eq!(lanes.diverged(), 0);
    [lanes.qpos(), lanes.qvel()].concat()
}

#[test]
fn instruction_sets_agree_with_double_precision_and_with_each_other() {
    let exact = run::<f64>();
    let check = |name: &str, found: Vec<f64>| {
        let mut errors: Vec<f64> = found.iter().zip(&exact).map(|(x, y)| (x - y).abs() / (1.0 + y.abs())).collect();
        errors.sort_by(f64::total_cmp);
        // 240 timesteps amplify rounding; where a foot slips the two may part, in few of the numbers.
        assert!(errors[errors.len() * 9 / 10] < 2e-3, "{name}: {:e}", errors[errors.len() * 9 / 10]);
        assert!(errors[errors.len() / 2] > 1e-9, "{name} is double precision itself");
    };
    check("array", run::<simd::F32x4>());
    #[cfg(target_arch = "x86_64")]
    {
        let [avx2, avx512] = [Instructions::Avx2, Instructions::Avx512].map(Instructions::available);
        let avx2 = avx2.then(run::<simd::F32x8>);
        let avx512 = avx512.then(run::<simd::F32x16>);
        // Both fuse, and no world sees its neighbours.
        if let (Some(avx2), Some(avx512)) = (&avx2, &avx512) {
            assert!(avx2.iter().zip(avx512).all(|(a, b)| a.to_bits() == b.to_bits()), "AVX2 and AVX-512 differ");
        }
        avx2.into_iter().for_each(|found| check("AVX2", found));
        avx512.into_iter().for_each(|found| check("AVX-512", found));
    }
}
