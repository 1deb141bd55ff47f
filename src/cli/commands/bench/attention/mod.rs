//! `hornbook bench attention`: attention kernels alone.

mod chart;
mod report;
mod torch;

use super::check_repetitions;
use crate::atomic_file::AtomicFile;
use crate::bench::{AttentionBenchmark, AttentionPhase, AttentionShape, LimitSamples, ReadBandwidth};
use crate::cli::args::open::thread_pool;
use crate::cli::args::values;
use crate::cli::args::values::KvPrecisionArg;
use crate::cli::output::progress;
use crate::kernels::attention::{AttentionKernel, KERNELS, KvPrecision};
use crate::kernels::isa::Isa;
use crate::kernels::thread_pool::MAX_THREADS;
use crate::memory;
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use report::{Report, Row, ThreadLimits};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;
use torch::Torch;

/// Compare attention kernels: speed, memory and accuracy
///
/// Every kernel runs on the same random inputs. Times are medians. "% of peak" and "% of bandwidth" relate
/// the FLOPs and bytes that attention requires to the peak FMA throughput and memory bandwidth of the same
/// threads, measured just before and after. Inputs that fit in the cache can exceed the memory bandwidth.
/// Workspace is the memory a kernel uses in addition to its inputs and outputs. Errors are maxima against an
/// f64 reference: absolute, and relative to the largest element of an output row. "Scaling" is the fitted
/// exponent of time over sequence length.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  hornbook bench attention
  hornbook bench attention --kernels flash,textbook --seq 128,256,512,1024,2048 --svg attention.svg
  hornbook bench attention --phase decode --seq 1024,4096 --batch 1,8 --kv-precision f32,f16,int8
  hornbook bench attention --phase chunked-prefill --chunk 128 --seq 512,1024
  hornbook bench attention --against torch --threads 1,2 --csv > attention.csv

Environment:
  HORNBOOK_PYTHON  Python interpreter with PyTorch, for --against torch [default: python3]")]
pub struct Attention {
    /// Kernels to measure [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::attention_kernel())]
    kernels: Vec<&'static dyn AttentionKernel>,

    /// Sequence lengths in tokens
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "127,251,509,1021")]
    seq: Vec<NonZeroUsize>,

    /// Number of attention heads
    #[arg(long, value_name = "N", default_value = "12")]
    heads: NonZeroUsize,

    /// Head dimension
    #[arg(long, value_name = "N", default_value = "64")]
    head_dim: NonZeroUsize,

    /// Phases to measure
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_enum,
        default_value = "prefill,chunked-prefill,decode"
    )]
    phase: Vec<Phase>,

    /// Tokens per chunk of chunked prefill
    #[arg(long, value_name = "N", default_value = "61")]
    chunk: NonZeroUsize,

    /// Batch sizes in sequences
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1")]
    batch: Vec<NonZeroUsize>,

    /// Numbers of threads to measure [default: one per core]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    threads: Vec<NonZeroUsize>,

    /// Precision of the KV cache
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_enum, default_value = "f32")]
    kv_precision: Vec<KvPrecisionArg>,

    /// Number of repetitions
    #[arg(long, value_name = "N", default_value = "9")]
    repeat: NonZeroUsize,

    /// Also measure PyTorch's scaled_dot_product_attention on the same f32 shapes, interleaved with the
    /// kernels
    #[arg(long, value_name = "WHAT", value_enum)]
    against: Option<Against>,

    /// Print one JSON object
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV, one line per measurement
    #[arg(long)]
    csv: bool,

    /// Also write a chart of time over sequence length
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Phase {
    /// All tokens of a sequence at once
    Prefill,
    /// The last tokens of a sequence, onto the KV cache of those before them
    ChunkedPrefill,
    /// The last token of a sequence
    Decode,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Against {
    /// PyTorch, run by the interpreter in HORNBOOK_PYTHON
    Torch,
}

/// The maximum bytes of a shape's keys and values; larger values are typing errors.
const MAX_KV_BYTES: usize = 1 << 33;

impl Attention {
    pub(super) fn run(self) -> Result<ExitCode> {
        let kernels = if self.kernels.is_empty() { KERNELS.to_vec() } else { self.kernels.clone() };
        let cores = available_parallelism().map_or(1, usize::from);
        let threads: Vec<usize> = match &self.threads[..] {
            [] => vec![cores],
            given => given.iter().map(|n| n.get()).collect(),
        };
        let shapes = self.shapes()?;
        check_repetitions(self.repeat, size_of::<f64>())?;
        let max_threads = threads.iter().copied().max().unwrap_or(1).min(MAX_THREADS);
        for shape in &shapes {
            for kernel in &kernels {
                let scores = kernel.score_matrix_len(shape.queries(), shape.seq);
                let blocks = max_threads.min(shape.batch.saturating_mul(shape.heads));
                let found = format!("{} with --kernels {}", shape.seq, kernel.name());
                memory::check("--seq", &found, &[scores, size_of::<f32>(), blocks])?;
            }
        }
        let pools = threads.iter().map(|&n| thread_pool(NonZeroUsize::new(n))).collect::<Result<Vec<_>>>()?;
        // Fails before anything is measured if torch is missing.
        let mut torch = self.against.map(|Against::Torch| Torch::start()).transpose()?;

        let bar = progress::bar(
            pools.len().saturating_mul((shapes.len() * kernels.len()).saturating_mul(self.repeat.get())),
        );
        let mut report = Report::new(Isa::choose()?, cores);
        let memory = ReadBandwidth::new()?;
        let mut limits: Vec<LimitSamples> = pools.iter().map(|_| LimitSamples::default()).collect();
        let mut before: Vec<(f64, f64)> =
            pools.iter().zip(&mut limits).map(|(pool, limits)| limits.measure(&memory, pool)).collect();
        for &shape in &shapes {
            for ((pool, samples), before) in pools.iter().zip(&mut limits).zip(&mut before) {
                let threads = pool.threads();
                let mut benchmark = AttentionBenchmark::new(pool, shape);
                let mut measurements = vec![];
                for &kernel in &kernels {
                    let (name, phase) = (kernel.name(), shape.phase.name());
                    bar.set_message(format!("{name} {phase} {}, {threads} threads", shape.seq));
                    measurements.push(benchmark.measure(kernel, pool, self.repeat.get(), || bar.inc(1)));
                }
                drop(benchmark);
                let torch = torch.as_mut().filter(|_| shape.kv_precision == KvPrecision::F32);
                let torch_seconds = torch.map(|torch| {
                    bar.set_message(format!("torch {} {}, {threads} threads", shape.phase.name(), shape.seq));
                    torch.measure(shape, threads, self.repeat.get())
                });
                // The limits after a shape are those before the next.
                let after = samples.measure(&memory, pool);
                let limits = ThreadLimits::around(threads, std::mem::replace(before, after), after);
                let rows = kernels.iter().zip(measurements);
                report.rows.extend(rows.map(|(kernel, m)| Row::new(*kernel, shape, m, limits)));
                if let Some(seconds) = torch_seconds {
                    report.rows.push(Row::torch(shape, seconds?, limits));
                }
            }
        }
        bar.finish_and_clear();
        for (pool, samples) in pools.iter().zip(&limits) {
            report.add_limits(pool.threads(), samples);
        }
        report.torch = torch.map(|torch| torch.version.clone());
        if let Some(file) = &self.svg {
            AtomicFile::create(file)?.write_and_commit(chart::svg(&report).as_bytes())?;
        }
        report.print(self.json, self.csv)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the requested shapes without duplicates.
    fn shapes(&self) -> Result<Vec<AttentionShape>> {
        let mut shapes: Vec<AttentionShape> = vec![];
        for phase in &self.phase {
            for kv in &self.kv_precision {
                for batch in &self.batch {
                    for seq in &self.seq {
                        let shape = AttentionShape {
                            phase: match phase {
                                Phase::Prefill => AttentionPhase::Prefill,
                                Phase::ChunkedPrefill => {
                                    AttentionPhase::ChunkedPrefill { chunk: self.chunk.get() }
                                }
                                Phase::Decode => AttentionPhase::Decode,
                            },
                            seq: seq.get(),
                            batch: batch.get(),
                            heads: self.heads.get(),
                            head_dim: self.head_dim.get(),
                            kv_precision: (*kv).into(),
                        };
                        let sizes =
                            [shape.seq, shape.batch, shape.heads, 2 * shape.head_dim, size_of::<f32>()];
                        let bytes = sizes.iter().try_fold(1usize, |bytes, n| bytes.checked_mul(*n));
                        if bytes.is_none_or(|bytes| bytes > MAX_KV_BYTES) {
                            return Err(Error::Parameter {
                                name: "--seq".into(),
                                found: format!("{batch} sequences of {seq} tokens with {} heads", self.heads),
                                expected: "at most 8 GiB of keys and values".into(),
                            });
                        }
                        let found = format!("{batch} sequences of {seq} tokens with {} heads", self.heads);
                        memory::check("--seq", &found, &[&sizes[..], &[2]].concat())?; // and their copies
                        if !shapes.contains(&shape) {
                            shapes.push(shape);
                        }
                    }
                }
            }
        }
        Ok(shapes)
    }
}
