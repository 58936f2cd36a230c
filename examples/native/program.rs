// Calls the kernel of examples/skeleton from Rust, without Python.
#[path = "ahead/rust/skeleton.rs"]
mod skeleton;
use skeleton::{Tensor, TensorMut};

fn main() -> Result<(), skeleton::Error> {
    let x = [3f32; 4 * 128];
    let mut y = [0f32; 4 * 128];
    skeleton::affine(&Tensor::new(&x, &[4, 128]), &mut TensorMut::new(&mut y, &[4, 128]), 2.0)?;
    println!("{:.3}", y[0]);

    let wrong = skeleton::affine(&Tensor::new(&x, &[8, 64]), &mut TensorMut::new(&mut y, &[4, 128]), 2.0);
    if let Err(error) = wrong {
        println!("{}: {}", error.code, error);
    }
    Ok(())
}
