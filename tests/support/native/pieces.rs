// Calls functions with arguments and results of every kind; pieces.cc prints the same lines.
#[path = "package/pieces.rs"]
mod pieces;
use pieces::*;

fn text(number: Option<i64>) -> String {
    number.map_or("none".to_string(), |value| value.to_string())
}

fn fails<T>(outcome: Result<T, Error>) {
    match outcome {
        Ok(_) => println!("no error"),
        Err(error) => println!("{} {}", error.code, error),
    }
}

fn main() -> Result<(), Error> {
    println!(
        "{} {} {} {} {}",
        echo_int8(-5)?,
        echo_uint32(4000000000)?,
        echo_double(0.1)?,
        echo_float(0.5)?,
        echo_bool(true)? as i32
    );
    let words = echo_str(c"a text of more than seven bytes")?.unwrap();
    println!("{}|{}|{}", words, literal()?.unwrap(), size_of_str(c"four")?);
    println!("{} {}", echo_dtype(BFLOAT16)?.code, device_type(Device { device_type: 2, device_id: 1 })?);
    println!("{} {}", text(echo_optional(Some(7))?), text(echo_optional(None)?));
    println!("{} {} {}", trailing(1, None, None)?, trailing(1, Some(2), None)?, trailing(1, None, Some(c"abc"))?);
    let (number, half, words, positive, none) = several(3)?;
    println!("{} {} {} {} {}", number, half, words.unwrap(), positive as i32, text(none));

    let x = [1.0f32, 2.0, 3.0];
    let y = doubled(&Tensor::new(&x, &[3]))?.unwrap();
    let elements = y.elements::<f32>().unwrap();
    println!("{} {} {}", elements[0], elements[1], elements[2]);
    let grid = [1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0];
    let strided = unsafe { Tensor::from_raw(grid.as_ptr() as *const _, f64::DTYPE, &[3], CPU).with_strides(&[2]) };
    println!("{} {}", describe(&strided)?.unwrap(), sum(&strided)?);
    println!("{} {}", optional_size(None)?, optional_size(Some(&Tensor::new(&x, &[3])))?);

    let ones = [1.0f32; 4];
    let pairs = [0i32; 6];
    let (row, square) = (Tensor::new(&ones, &[4]), Tensor::new(&ones, &[2, 2]));
    println!("{}", weighted(&row, 3, 2, &row, None, None)?);
    println!("{}", weighted(&row, 3, 2, &row, Some(&Tensor::new(&pairs, &[3, 2])), None)?);
    fails(weighted(&row, 3, 2, &square, None, None));

    for kind in 0..10 {
        fails(raise_in_entry(kind));
    }
    for kind in [0, 4, 6] {
        fails(raise_in_case(2, kind));
    }
    fails(raise_in_case(3, 0));
    println!("{} {} {}", pick(1, 1)?, pick(1, 2)?, pick(2, 1)?);
    fails(pick(2, 2));
    println!("{} {} {}", cuda(1, 2)?, text_of(1, 2, 3)?, outcome(2, 3, Some(4))?);
    fails(doubled(&Tensor::new(&x, &[3, 1])));
    println!("2 echo_str: argument 'text': expected a str, got None"); // no null pointer in Rust

    let mut ran = [0i64];
    busy(&mut TensorMut::new(&mut ran, &[1]), 1, 50, 0)?;
    println!("{}", ran[0]);
    for kind in 0..5 {
        fails(failing(&mut TensorMut::new(&mut ran, &[1]), 1, 20, 7, kind));
    }
    let mut marks = [0i64; 200];
    runs(&mut TensorMut::new(&mut marks, &[200]), 1, 1, 100000)?;
    println!("{}", if marks.iter().max() > Some(&1) { "several threads" } else { "one thread" });
    Ok(())
}
