//! An op of your own, outside Thalweg's crates: `snake`, `x + sin²(a·x) / a`, an activation for periodic data (Ziyin et
//! al., *Neural Networks Fail to Learn Periodic Functions and How to Fix It*, 2020). One type says everything about it:
//! attributes, types, kernel, gradient, samples. Printing, parsing, planning and every device follow.
//!
//! Run it: `cargo run --release --example your_own_op`. It prints a loss that falls below 0.01.

use thalweg::graph::kernel::build::{Axes, lit, read};
use thalweg::graph::kernel::{BufferType, Kernel};
use thalweg::graph::{Accuracy, OpError, Schema, TensorType, Types};
use thalweg::ops::{Gradients, OpRow, Sample, VjpCx, attrs, require};
use thalweg::prelude::*;
use thalweg::{DType, Op};

attrs! {
    /// `x + sin²(a·x) / a`.
    pub struct Snake {
        /// Frequency.
        a: f64 = 1.0,
    }
}

impl Op for Snake {
    const SCHEMA: Schema = Schema { name: "snake", operands: &["x"], results: &["out"], accuracy: Accuracy::Ulps(8) };

    fn infer(&self, operands: &[TensorType]) -> std::result::Result<Types, OpError> {
        require!(operands[0].dtype.is_float(), "snake.C1", "needs floats, got {}", operands[0]);
        require!(self.a != 0.0, "snake.C2", "the frequency is zero"; help: "choose any other number");
        Ok(vec![operands[0].clone()])
    }
    fn lower(&self, operands: &[BufferType], results: &[BufferType]) -> Option<Kernel> {
        let mut axes = Axes::new();
        let at = axes.par_over(&results[0].shape);
        let x = read(0, at);
        let wave = (x.clone() * lit(self.a)).sin();
        Some(axes.nest(operands, results, [x + wave.clone() * wave / lit(self.a)]))
    }
    /// d/dx = 1 + sin(2·a·x).
    fn gradient<'g>(&self, cx: &VjpCx<'g>) -> Option<Gradients<'g>> {
        Some(vec![Some(cx.ct() * ((cx.operand(0) * (2.0 * self.a)).sin() + 1.0))])
    }
    fn samples() -> Vec<Sample<Self>> {
        vec![Sample::f32(Self { a: 1.0 }, [&[2, 3]]), Sample::f32(Self { a: 0.5 }, [&[7]])]
    }
}

/// `x.snake(2.0)`, as if it had always been there.
trait SnakeExt<'g> {
    fn snake(self, a: f64) -> Tensor<'g>;
}
impl<'g> SnakeExt<'g> for Tensor<'g> {
    #[track_caller]
    fn snake(self, a: f64) -> Tensor<'g> {
        self.apply(Snake { a }, [])
    }
}

fn main() -> thalweg::Result<()> {
    let g = Graph::new("wave").seed(1);
    let n = g.dim("n", 1..=256);
    let x = g.input("x", F32, shape![n, 1]);
    let y = g.input("y", F32, shape![n, 1]);
    let hidden = g.scope("hidden", || Linear::new(32).call(x)).snake(4.0);
    let guess = g.scope("out", || Linear::new(1).call(hidden));
    let loss = ((guess - y) * (guess - y)).mean().named("loss");
    g.program("train").outputs([loss]).update(AdamW::new(0.01).minimize(loss));

    // Text and bytes find it by name once its row is registered.
    let mut registry = thalweg::ops::registry();
    OpRow::of::<Snake>().register(&mut registry);
    let graph = g.finish()?;
    let again = thalweg::graph::Graph::parse(&graph.to_string(), &registry).expect("what was printed parses");
    assert_eq!(again, graph);

    let mut model = g.compile(&Cluster::local())?;
    let xs: Vec<f32> = (0..128).map(|i| i as f32 / 32.0 - 2.0).collect();
    let ys: Vec<f32> = xs.iter().map(|x| (3.0 * f64::from(*x)).sin() as f32).collect();
    let (x, y) = (Array::from_slice(&[128, 1], &xs), Array::from_slice(&[128, 1], &ys));
    let mut loss = f64::NAN;
    for step in 0..600 {
        loss = model.run("train", feed! { x: &x, y: &y })?.item("loss");
        if step % 100 == 0 {
            println!("step {step:3}  loss {loss:.5}");
        }
    }
    println!("step 600  loss {loss:.5}");
    assert!(loss < 0.01 && x.dtype() == DType::F32);
    Ok(())
}
