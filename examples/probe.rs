use hornbook::checkpoint::Checkpoint;
use hornbook::kernels::{attention::KvPrecision, isa::Isa, simd::*, threads::*};
use hornbook::model::*;
use std::time::Instant;
struct Read<'a>(&'a [f32]);
impl Kernel for Read<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut acc = [s.splat(0.0); 8];
        for c in self.0.chunks_exact(128) {
            for i in 0..8 {
                acc[i] = s.add(acc[i], s.load(c[i * 16..][..16].try_into().unwrap()));
            }
        }
        let mut t = s.splat(0.0);
        for a in acc {
            t = s.add(t, a);
        }
        s.reduce_add(t)
    }
}
struct Fma;
impl Kernel for Fma {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut acc = [s.splat(1.0); 12];
        let (a, b) = (s.splat(std::hint::black_box(0.999)), s.splat(std::hint::black_box(1e-3)));
        for _ in 0..1_000_000 {
            for acc in &mut acc {
                *acc = s.mul_add(*acc, a, b);
            }
        }
        let mut t = s.splat(0.0);
        for a in acc {
            t = s.add(t, a);
        }
        s.reduce_add(t)
    }
}
fn median(mut f: impl FnMut() -> f64, n: usize) -> f64 {
    let mut v: Vec<f64> = (0..n).map(|_| f()).collect();
    v.sort_by(f64::total_cmp);
    v[n / 2]
}
fn main() {
    let folder = std::env::args().nth(1).expect("usage: probe FOLDER [THREADS] [f16]");
    let threads: usize = std::env::args().nth(2).and_then(|a| a.parse().ok()).unwrap_or(2);
    let isa = Isa::choose().unwrap();
    let team = Team::new(threads, isa);
    let buf = vec![1.0f32; 128 << 20 >> 1];
    let bw = |team: &Team| {
        let t = Instant::now();
        team.run(64, |i| {
            let l = buf.len() / 64;
            std::hint::black_box(isa.run(Read(&buf[i * l..][..l])));
        });
        buf.len() as f64 * 4.0 / t.elapsed().as_secs_f64() / 1e9
    };
    let fl = |team: &Team| {
        let t = Instant::now();
        team.run(threads, |_| {
            std::hint::black_box(isa.run(Fma));
        });
        threads as f64 * 12e6 * 32.0 / t.elapsed().as_secs_f64() / 1e9
    };
    println!("bw {:.1} GB/s  fma {:.1} GF", median(|| bw(&team), 9), median(|| fl(&team), 9));
    let ck = Checkpoint::from_folder(folder.as_ref()).unwrap();
    let bytes = ck.mapped_bytes() as f64;
    let model = Model::new(ck, team);
    let mut scratch = Scratch::new();
    let ids: Vec<u32> = (0..512).map(|i| i * 37 % model.config().vocab_size as u32).collect();
    let kv =
        if std::env::args().nth(3).as_deref() == Some("f16") { KvPrecision::F16 } else { KvPrecision::F32 };
    let mut cache = KvCache::new(model.config(), model.config().n_positions, kv);
    let pre = median(
        || {
            cache.truncate(0);
            let t = Instant::now();
            for c in ids.chunks(512) {
                model
                    .forward(
                        &mut [Segment { tokens: c, cache: &mut cache, wanted: Wanted::Last }],
                        &mut scratch,
                        &mut (),
                    )
                    .unwrap();
            }
            512.0 / t.elapsed().as_secs_f64()
        },
        5,
    );
    println!("prefill 512: {pre:.0} tok/s ");
    for at in [32usize, 400] {
        let mut ratio = vec![];
        let d = median(
            || {
                cache.truncate(at);
                let t = Instant::now();
                for i in 0..8 {
                    model
                        .forward(
                            &mut [Segment {
                                tokens: &ids[i..i + 1],
                                cache: &mut cache,
                                wanted: Wanted::Last,
                            }],
                            &mut scratch,
                            &mut (),
                        )
                        .unwrap();
                }
                let r = 8.0 / t.elapsed().as_secs_f64();
                ratio.push(r * (bytes - 3e6) / 1e9 / bw(model.team()));
                r
            },
            9,
        );
        ratio.sort_by(f64::total_cmp);
        println!("decode at {at}: {d:.1} tok/s, weights {:.2} of bandwidth", ratio[4]);
    }
    let mut caches: Vec<KvCache> = (0..8).map(|_| KvCache::new(model.config(), 256, kv)).collect();
    let b8 = median(
        || {
            let t = Instant::now();
            for c in &mut caches {
                c.truncate(32)
            }
            for i in 0..4 {
                let mut batch: Vec<Segment> = caches
                    .iter_mut()
                    .map(|c| Segment { tokens: &ids[i..i + 1], cache: c, wanted: Wanted::Last })
                    .collect();
                model.forward(&mut batch, &mut scratch, &mut ()).unwrap();
            }
            32.0 / t.elapsed().as_secs_f64()
        },
        7,
    );
    println!("batch 8: {b8:.1} tok/s");
}
