// Prints the nanoseconds of a direct call and of a dispatching one, from Rust: the least of many turns each.
#[path = "package/kernels.rs"]
mod kernels;
use kernels::TensorMut;
use std::time::Instant;

unsafe extern "C" {
    fn direct_add_scalar(x: *mut f32, count: i64, value: f32);
}

const CALLS: u32 = 5000;
const COUNT: usize = 16;

fn nanoseconds(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

fn main() {
    let mut x = [0f32; COUNT];
    let (mut direct, mut dispatching) = (f64::MAX, f64::MAX);
    for _ in 0..400 {
        direct = direct.min(nanoseconds(|| unsafe { direct_add_scalar(x.as_mut_ptr(), COUNT as i64, 1.0) }));
        dispatching = dispatching.min(nanoseconds(|| {
            kernels::add_scalar(&mut TensorMut::new(&mut x, &[COUNT as i64]), 1.0).unwrap();
        }));
    }
    assert!(x[0] == x[COUNT - 1] && x[0] >= 1.0);
    println!("{direct:.2} {dispatching:.2}");
}
