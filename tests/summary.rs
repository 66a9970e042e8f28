//! A program layer by layer: the demo's table as it is printed, and the kit's models against numbers that are known.

mod common;

use thalweg::Cluster;
use thalweg::graph::Summary;
use thalweg::kit::Case;

fn of_case(name: &str) -> Summary {
    let mut case = Case::open(name, &Cluster::cpu(1), None).expect("it compiles").expect("there is such a case");
    case.summary().expect("it has a plan")
}

#[test]
fn a_training_program_is_shown_layer_by_layer() {
    let mut model = common::models::ALL[0].compile(1);
    let summary = model.summary("train", &[("batch".into(), 64)].into()).expect("it has a plan");
    // Without the last line: how much is fused is none of this test's business.
    let plan = summary.plan.clone().expect("it has a plan");
    insta::assert_snapshot!(Summary { plan: None, ..summary.clone() }, @r"
    digits, program `train`, batch = 64
    input `x` f32[batch, 1, 8, 8]
    input `y` i32[batch]
    layer       ops                                    output                parameters  forward  backward   bytes
    body.conv1  conv2d + reshape + add                 f32[batch, 16, 8, 8]         160   1.25 M    1.25 M  1.34 M
    body        relu                                   f32[batch, 16, 8, 8]           0   65.5 k     131 k  1.44 M
    body.conv2  conv2d + reshape + add                 f32[batch, 32, 8, 8]       4,640   37.9 M    75.6 M  3.99 M
    body        relu + max_pool2d + reshape + dropout  f32[batch, 512]                0   1.08 M     590 k  5.87 M
    body.head   matmul + add                           f32[batch, 10]             5,130    656 k    1.31 M   470 k
    (top)       cross_entropy + mean                   f32[]                          0   2.82 k    2.56 k  43.6 k
    (updates)   cast + add + pow + sub + adamw                                        0        0     169 k   278 k
    total                                                                         9,930   40.9 M    79.1 M  13.4 M
    state: parameters 39.7 kB, optimizer 79.4 kB, other 8 B
    ");
    assert!(plan.bytes < summary.total.bytes, "fusion saves memory traffic");
    let session = model.session().plan("train", &[("batch".into(), 64)].into()).expect("it is there");
    assert_eq!(plan.scratch_bytes, session.devices[0].scratch_bytes);
    assert_eq!(plan.launches, session.devices[0].launches().count());
    let json = serde_json::to_value(&summary).expect("plain data");
    assert_eq!(json["layers"][0]["path"], "body.conv1");
    assert_eq!(json["layers"][0]["parameters"], 160);
    // 64 images, 16 × 8 × 8 results, 9 multiply-adds and one addition each.
    assert_eq!(json["layers"][0]["forward_flops"], 64.0 * 16.0 * 64.0 * (18.0 + 1.0));
}

/// Counts of parameters as everybody knows them; multiply-adds of LeNet by hand, of ResNet-50 as its papers and zoos say.
#[test]
fn models_have_as_many_parameters_as_is_known() {
    for (name, parameters) in [
        ("mlp_train", 784 * 512 + 512 + 512 * 512 + 512 + 5130),
        ("lenet_train", 61_706),
        ("resnet18_cifar_train", 11_173_962),
        ("resnet50_infer_b1", 25_557_032),
    ] {
        let summary = of_case(name);
        assert_eq!(summary.total.parameters, parameters, "{name}");
        assert_eq!(summary.layers.iter().map(|l| l.parameters).sum::<u64>(), parameters, "{name}: each in one layer");
        assert_eq!(summary.total.parameter_bytes, 4 * parameters, "{name}");
    }
    let lenet = of_case("lenet_train");
    let flops = |path: &str| lenet.layers.iter().filter(|l| &*l.path == path).map(|l| l.forward_flops).sum::<f64>();
    // Per image: multiply-adds are two operations, the bias is one more per result.
    assert_eq!(flops("conv1"), 64.0 * (6 * 28 * 28) as f64 * (2.0 * 25.0 + 1.0));
    assert_eq!(flops("conv2"), 64.0 * (16 * 10 * 10) as f64 * (2.0 * 150.0 + 1.0));
    assert_eq!(flops("fc1"), 64.0 * 120.0 * (2.0 * 400.0 + 1.0));
    assert!(lenet.total.backward_flops > 1.5 * lenet.total.forward_flops);
    let resnet = of_case("resnet50_infer_b1");
    let giga = resnet.total.forward_flops / 2e9;
    assert!((4.05..4.2).contains(&giga), "ResNet-50 takes 4.1 G multiply-adds, not {giga}");
    assert_eq!(resnet.total.backward_flops, 0.0);
}

#[test]
fn what_cannot_be_summed_up_says_why() {
    let mut model = common::models::ALL[0].compile(1);
    let mut said = |program: &str, batch: &[u64]| {
        let bindings = batch.iter().map(|n| ("batch".into(), *n)).collect();
        model.summary(program, &bindings).expect_err("it is refused").to_string()
    };
    assert!(said("trian", &[64]).contains("did you mean `train`?"));
    assert!(said("train", &[]).contains("give every named dimension a value"));
}
