// Names the digit in a picture of 28 x 28 float32 pixels.
//
//     tilewright compile mnist.onnx -o mnist.so
//     rustc --edition 2021 digit.rs -C link-arg=mnist.so -C link-arg=-Wl,-rpath,.
//     ./digit picture.f32

use std::ffi::{c_char, c_void, CStr};

// What mnist.h declares.
#[repr(C)]
struct Inputs {
    x: *const f32,
}

#[repr(C)]
struct Outputs {
    y: *mut f32,
}

extern "C" {
    fn mnist_run(inputs: *const Inputs, outputs: *const Outputs, workspace: *mut c_void) -> i32;
    fn mnist_workspace_bytes(dims: *const i64, threads: i32) -> usize;
    fn mnist_error_text(code: i32) -> *const c_char;
}

#[repr(C, align(64))]
#[derive(Clone)]
struct Line([u8; 64]);

/// A model with memory to compute in; `&mut` keeps two calls from sharing it.
struct Mnist {
    workspace: Vec<Line>,
}

impl Mnist {
    fn new() -> Mnist {
        let bytes = unsafe { mnist_workspace_bytes(std::ptr::null(), 1) };
        Mnist { workspace: vec![Line([0; 64]); bytes.div_ceil(64)] }
    }

    fn scores(&mut self, picture: &[f32; 784]) -> Result<[f32; 10], String> {
        let mut scores = [0f32; 10];
        let inputs = Inputs { x: picture.as_ptr() };
        let outputs = Outputs { y: scores.as_mut_ptr() };
        let workspace = self.workspace.as_mut_ptr().cast();
        match unsafe { mnist_run(&inputs, &outputs, workspace) } {
            0 => Ok(scores),
            code => Err(unsafe { CStr::from_ptr(mnist_error_text(code)) }.to_string_lossy().into_owned()),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: digit picture.f32")?;
    let mut picture = [0f32; 784];
    for (pixel, bytes) in picture.iter_mut().zip(std::fs::read(path)?.chunks_exact(4)) {
        *pixel = f32::from_ne_bytes(bytes.try_into()?);
    }
    let scores = Mnist::new().scores(&picture)?;
    let (best, score) = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).ok_or("no scores")?;
    println!("{best} with {score:.3}");
    Ok(())
}
