//! Every operation of [`Simd`] on every instruction set of this machine, against
//! [`Portable`](super::Portable), on ordinary and special values: the same bits, and NaN where it has NaN.

use super::*;
use crate::isa::Isa;
use crate::testing::random_values;

/// Zeros, infinities, NaN, subnormal numbers, and the neighborhood of f16's largest value.
const SPECIAL: [f32; 18] = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    1e-40,
    -1e-45,
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    65504.0,
    65519.996,
    65520.0,
    -1e-8,
    5.9604645e-8,
    3.3333333,
];

/// The operands of all operations.
#[derive(Clone)]
struct Operands {
    a: [f32; LANES],
    b: [f32; LANES],
    c: [f32; LANES],
    bytes: [u8; 4 * LANES],
    x: [i8; 4],
}

/// The results by operation, as bits; every NaN is the same value.
type Results = Vec<(&'static str, Vec<u32>)>;

impl Kernel for &Operands {
    type Output = Results;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Results {
        let Operands { a, b, c, bytes, x } = self;
        let [va, vb, vc] = [a, b, c].map(|lanes| simd.load(lanes));
        let (f16s, bf16s) = (a.map(f16::from_f32), a.map(bf16::from_f32));
        let i8s: [i8; LANES] = std::array::from_fn(|i| bytes[i] as i8);
        let i32s: [i32; LANES] = std::array::from_fn(|i| (i32::from(bytes[i]) - 99) << 16);
        let (vbytes, sums) = (simd.load_bytes(bytes), simd.load_i32s(&i32s));
        let pairs = [[x[0], x[2]], [x[1], x[3]]].map(|pair| pair.map(i16::from));
        let zero_point = -128 * x.iter().map(|&x| i32::from(x)).sum::<i32>();
        let dot = |w| lanes(simd, simd.to_f32s(simd.dot_u8i8(w, *x, &pairs, simd.byte_sums(zero_point))));
        let mut nibble_sums = simd.nibble_sums([0, 0]);
        for _ in 0..8 {
            nibble_sums = simd.dot_u4i8(simd.low_nibbles(vbytes), *x, nibble_sums);
        }
        let biased = simd.add(simd.splat(f32::from(x[0])), simd.splat(ROUND_MAGIC));
        let mut halves = [f16::ZERO; LANES];
        simd.store_f16(va, &mut halves);
        let mut partial = [7.0; 5];
        simd.store_partial(va, &mut partial);
        let [even, odd] = simd.interleave(va, vb);
        vec![
            ("splat", lanes(simd, simd.splat(a[3]))),
            ("load_f16", lanes(simd, simd.load_f16(&f16s))),
            ("load_bf16", lanes(simd, simd.load_bf16(&bf16s))),
            ("load_i8", lanes(simd, simd.load_i8(&i8s))),
            ("store_f16", halves.map(|x| bits(x.to_f32())).to_vec()),
            ("add", lanes(simd, simd.add(va, vb))),
            ("sub", lanes(simd, simd.sub(va, vb))),
            ("mul", lanes(simd, simd.mul(va, vb))),
            ("div", lanes(simd, simd.div(va, vb))),
            ("sqrt", lanes(simd, simd.sqrt(va))),
            ("mul_add", lanes(simd, simd.mul_add(va, vb, vc))),
            ("max", lanes(simd, simd.max(va, vb))),
            ("min", lanes(simd, simd.min(va, vb))),
            ("zero_below", lanes(simd, simd.zero_below(va, vb, 0.5))),
            ("scale_by_pow2", lanes(simd, simd.scale_by_pow2(vc, biased))),
            ("splat_i32", lanes(simd, simd.to_f32s(simd.splat_i32(i32s[1])))),
            ("to_f32s", lanes(simd, simd.to_f32s(sums))),
            ("low_nibbles", dot(simd.low_nibbles(vbytes))),
            ("high_nibbles", dot(simd.high_nibbles(vbytes))),
            ("low_bf16s", lanes(simd, simd.low_bf16s(vbytes))),
            ("high_bf16s", lanes(simd, simd.high_bf16s(vbytes))),
            ("dot_u8i8", dot(vbytes)),
            ("dot_u4i8", lanes(simd, simd.nibble_sums_to_f32s(nibble_sums))),
            ("reduce_add_to_4", simd.reduce_add_to_4(va).map(bits).to_vec()),
            ("reduce_add", vec![bits(simd.reduce_add(va))]),
            ("interleave", [lanes(simd, even), lanes(simd, odd)].concat()),
            ("reduce_max", vec![bits(simd.reduce_max(va))]),
            ("load_partial", lanes(simd, simd.load_partial(&a[..11]))),
            ("store_partial", partial.map(bits).to_vec()),
        ]
    }
}

#[inline(always)]
fn lanes<S: Simd>(simd: S, v: S::F32s) -> Vec<u32> {
    let mut lanes = [0.0; LANES];
    simd.store(v, &mut lanes);
    lanes.map(bits).to_vec()
}

/// The bits of a value, the same for every NaN: which one an operation returns is up to the processor.
fn bits(x: f32) -> u32 {
    if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
}

#[test]
fn every_operation_matches_portable() {
    for round in 0..200 {
        let random = random_values(round, 3 * LANES);
        // Every pair of special values meets in some round; some rounds have ordinary values alone.
        let value = |operand: usize, i: usize| {
            let stride = [1, 1 + round as usize % SPECIAL.len(), 5][operand];
            match round % 4 {
                0 => random[operand * LANES + i],
                _ => SPECIAL[(i * stride + round as usize / 4 + 3 * operand) % SPECIAL.len()],
            }
        };
        let operands = Operands {
            a: std::array::from_fn(|i| value(0, i)),
            b: std::array::from_fn(|i| value(1, i)),
            c: std::array::from_fn(|i| value(2, i)),
            bytes: std::array::from_fn(|i| (i * 37 + round as usize * 11) as u8),
            x: [127, -127, (round % 100) as i8, -(round as i8 % 90)],
        };
        let expected = Isa::Portable.run(&operands);
        for isa in Isa::available() {
            for ((name, found), (_, expected)) in isa.run(&operands).iter().zip(&expected) {
                assert_eq!(
                    found, expected,
                    "{name} on {isa}, round {round}: {:?} {:?}",
                    operands.a, operands.b
                );
            }
        }
    }
}

/// Portable itself, against arithmetic on one lane.
#[test]
fn portable_matches_scalar_arithmetic() {
    let operands = Operands {
        a: std::array::from_fn(|i| SPECIAL[i]),
        b: std::array::from_fn(|i| SPECIAL[(i + 5) % SPECIAL.len()]),
        c: [0.25; LANES],
        bytes: std::array::from_fn(|i| i as u8 * 4),
        x: [1, -2, 3, -4],
    };
    let Operands { a, b, c, .. } = &operands;
    let results = Isa::Portable.run(&operands);
    let result = |wanted: &str| &results.iter().find(|(name, _)| *name == wanted).unwrap().1;
    for i in 0..LANES {
        assert_eq!(result("add")[i], bits(a[i] + b[i]));
        assert_eq!(result("div")[i], bits(a[i] / b[i]));
        assert_eq!(result("mul_add")[i], bits(a[i].mul_add(b[i], c[i])));
        assert_eq!(result("scale_by_pow2")[i], bits(0.5));
        let w = |j: usize| (16 * i + 4 * j) as f32 - 128.0;
        assert_eq!(result("dot_u8i8")[i], bits(w(0) - 2.0 * w(1) + 3.0 * w(2) - 4.0 * w(3)));
    }
}
