package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/studies"
	"igcsearch/trainer"
	"igcsearch/trainer/bench"
)

type benchOptions struct {
	pairs                 benchPairs
	systems               []string
	batch, threads, steps positive
	scaling               bool
	peer                  string
	peerLimit             time.Duration
	precisions            benchPrecisions
	format                string
	output                string
	device                device
	load                  float64 // of the machine in the minute before the measurement, in cores
}

// benchPairs are pairs, and the names of shipped studies for theirs.
type benchPairs struct {
	pairs
	groups []benchGroup // those of studies
}

// benchGroup is a part of what is measured, of which the table has means.
type benchGroup struct {
	name     string
	from, to int // which networks, without the last
}

func (p *benchPairs) Type() string { return "LxM,...|STUDY" }
func (p *benchPairs) Set(s string) error {
	var list pairs
	var groups []benchGroup
	for _, text := range strings.Split(s, ",") {
		if slices.Contains(studies.Names(), text) {
			study, err := studies.Load(text, nil)
			if err != nil {
				return err
			}
			if len(study.Pairs) == 0 {
				return fmt.Errorf("study %s compares networks: give them to --systems", text)
			}
			from := len(list)
			list = append(list, study.PairList()...)
			groups = append(groups, benchGroup{text, from, len(list)})
			continue
		}
		var one pairs
		if err := one.Set(text); err != nil {
			if !twoNumbers.MatchString(strings.TrimSpace(text)) {
				err = fmt.Errorf("%q: %w, or a shipped study of pairs, like fig3a", text, err)
			}
			return err
		}
		list = append(list, one...)
	}
	p.pairs, p.groups = list, groups
	return nil
}

// benchPrecisions are values of the setting of studies, each once.
type benchPrecisions []string

// knownPrecisions are those that bench measures.
var knownPrecisions = []string{search.PrecisionF32, search.PrecisionBF16, search.PrecisionAMX, search.PrecisionTF32}

func (p *benchPrecisions) String() string { return strings.Join(*p, ",") }
func (p *benchPrecisions) Type() string   { return "PRECISION,..." }
func (p *benchPrecisions) Set(s string) error {
	list := strings.Split(s, ",")
	for i, text := range list {
		if slices.Contains(list[:i], text) {
			return fmt.Errorf("%s twice", text)
		}
		if !slices.Contains(knownPrecisions, text) {
			return fmt.Errorf("%q: want %s", text, strings.Join(knownPrecisions, ", "))
		}
	}
	*p = list
	return nil
}

const benchLong = `bench trains the network of each pair on random pictures for a few steps and
shows the median time of a step: forward pass, gradients and update of one
batch. GFLOP/s counts two operations for each multiply–add, three times those
of the forward pass; the peak is what the same threads reach without memory, by
the instruction that the line above the table names. GB/s counts the activations
and their gradients each time an op must read or write them; the bandwidth is that
of a copy by the same threads. "bound" is what a step cannot be faster than, even if
all else were free.

--precision f32,bf16 measures both: half of the steps of the one, half of those of
the other, and then the other halves. It takes any of f32, bf16 and bf16-amx together;
tf32 is measured alone, on a GPU. Beside f32, two more columns compare speed and memory
of the others with it. If there are several pairs, the last rows have geometric means of all, of those of
each study and of those with M = 2, and the lowest and the highest values.

"eval" is the rate of evaluation in units of that of training, "input" the time
to crop, mirror and normalise a batch on one thread in percent of the step, "MB"
what the model added to the process's resident memory.

--scaling measures, in rounds, one trial on one thread, as many trials at once,
and one trial on all threads. Three more ratios of all threads to one tell what
the machine has to give: "arithmetic", multiply–adds that touch no memory;
"rows", the step's micro-kernels on data that lies in the caches of their core;
"copy", a copy of memory.

On a GPU (--device cuda:0) one training is measured alone, and as many at once as
give the most pictures a second: TFLOP/s, GB/s and the share of the limit are of
all of them, "host" is the processor time of one, in percent of a core.

Other programs make a step slower. bench measures the network, not the machine, only
where nothing else runs, and warns where something did.

Each row is written as soon as it is measured, and --output appends it to a file as a
line of JSON, so that a bench that is ended loses none. One that is ended while a peer
runs writes the row of our first half of the steps. The file has a line of one training
on a GPU alone before it has that of all.

--peer compares with another implementation: the command gets the arguments
--pairs LxM --batch N --threads N, and prints JSON lines with "step_s", the seconds
of a step; of several the least counts, and on a processor the column "peer" shows the
"precision" and the "layout" of that line. There the peer runs between the two halves
of our steps, on a GPU after our row is written. Of a peer that fails, or takes longer
than --peer-limit, what it had printed counts; without that its columns stay empty.
bench goes on, and its exit code is 1. As JSON each line of a peer is a line of its own.
The command is split at spaces, without quoting; a script can hold what needs more.`

func newBenchCommand() *cobra.Command {
	o := benchOptions{
		// Table 1 (i) of the paper.
		pairs:      benchPairs{pairs: space.Budget{Params: 4672, Kernel: 9, Tolerance: 0.024}.Nearest()},
		precisions: benchPrecisions{search.PrecisionF32},
		batch:      64, threads: positive(min(runtime.GOMAXPROCS(0), bench.MaxThreads)), steps: 5,
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast this machine trains",
		Long:  benchLong,
		Example: `  igcsearch bench --pairs 40x2,64x1

  # JSON lines
  igcsearch bench --pairs 40x2 --batch 16 --threads 1 --steps 3 --format json

  # all pairs of the paper's Table 1 in float32 and bfloat16, beside PyTorch
  igcsearch bench --pairs fig3a,fig3b --precision f32,bf16 --peer trainer/testdata/torch_step.py

  # on a processor with AMX, both ways to multiply bfloat16
  igcsearch bench --pairs 40x2,1x23 --precision f32,bf16,bf16-amx

  # networks of the paper's tables, their pictures of 32×32, of ResNet 224×224
  igcsearch bench --systems IGC-L24M2-D20,RegConv-W18-D20,ResNet-C64 --batch 16

  # several trials at once, and several threads on one trial
  igcsearch bench --scaling --threads 2 --pairs 40x2

  # a GPU
  igcsearch bench --device cuda:0 --pairs fig3a --output rows.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd.Flags().Changed); err != nil {
				return usageError{err}
			}
			o.load = machineLoad()
			gpus, err := o.device.gpus(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if len(gpus) > 1 {
				return usageError{fmt.Errorf("bench measures one GPU: --device cuda:%d", gpus[0].Index)}
			}
			if len(gpus) > 0 {
				return runGPUBench(cmd.Context(), o, gpus[0], cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if o.scaling {
				return runScaling(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if feeds := bench.Feeds(int(o.batch)); cmd.Flags().Changed("threads") && int(o.threads) > feeds {
				report.Warn(cmd.ErrOrStderr(), "bench", []string{fmt.Sprintf("a batch of %d has work for %d of %d threads: the "+
					"others are not used", int(o.batch), feeds, int(o.threads))})
			}
			return runBench(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().Var(&o.pairs, "pairs", "the pairs to measure; a shipped study means its pairs")
	cmd.Flags().StringSliceVar(&o.systems, "systems", nil,
		"measure these `NETWORKS` in place of pairs, like IGC-L24M2-D20")
	cmd.Flags().Var(&o.batch, "batch", "pictures of one step")
	cmd.Flags().Var(&o.threads, "threads", "threads of one training, each of which works on 16 pictures of the batch at a time")
	cmd.Flags().Var(&o.steps, "steps", "steps to measure")
	cmd.Flags().BoolVar(&o.scaling, "scaling", false,
		"measure one trial on one thread, --threads trials at once, and one trial on --threads threads")
	cmd.Flags().StringVar(&o.peer, "peer", "", "measure the `COMMAND` too")
	cmd.Flags().DurationVar(&o.peerLimit, "peer-limit", 5*time.Minute, "stop the peer of a pair after this time")
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "append each measurement to this `FILE` too, as a line of JSON")
	addChoice(cmd, &o.format, "format", "how to print the measurements", "table", "markdown", "json")
	cmd.Flags().Var(&o.precisions, "precision",
		"the precision of the training, as the setting of a study: f32, bf16, bf16-amx or tf32; "+
			"several are measured alternately")
	if err := cmd.RegisterFlagCompletionFunc("precision", cobra.FixedCompletions(append(slices.Clone(knownPrecisions),
		"f32,bf16", "f32,bf16-amx", "f32,bf16,bf16-amx"), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag exists: it was added above
	}
	addDevice(cmd, &o.device)
	o.device = device{text: "cpu"}
	cmd.Flag("device").DefValue, cmd.Flag("device").Usage = "cpu", "what to measure: cpu, or a GPU like cuda:0"
	cmd.Flag("threads").DefValue = "one for each core"
	return cmd
}

// check refuses flags that exclude each other, and networks that cannot be
// measured. changed reports whether a flag was given.
func (o *benchOptions) check(changed func(flag string) bool) error {
	bfloat16 := slices.IndexFunc(o.precisions, search.Bfloat16)
	switch {
	case changed("peer") && strings.TrimSpace(o.peer) == "":
		return errors.New("--peer is empty")
	case o.peerLimit <= 0:
		return fmt.Errorf("--peer-limit %v: want more than 0", o.peerLimit)
	case o.scaling && o.peer != "":
		return errors.New("--scaling has no --peer")
	case o.has(search.PrecisionTF32) && o.device.String() == "cpu":
		return fmt.Errorf("--precision %s is of a GPU: give it by --device", search.PrecisionTF32)
	case bfloat16 >= 0 && o.device.String() != "cpu":
		return fmt.Errorf("--precision %s is of the processor: leave --device out", o.precisions[bfloat16])
	case len(o.precisions) > 1 && o.device.String() != "cpu":
		return errors.New("a GPU is measured in one --precision")
	case len(o.precisions) > 1 && o.scaling:
		return errors.New("--scaling measures one --precision")
	case o.scaling && o.device.String() != "cpu":
		return errors.New("--scaling is of the processor: leave --device out")
	case len(o.systems) > 0 && (o.peer != "" || o.scaling || changed("pairs")):
		return errors.New("--systems stands alone: no --pairs, --peer or --scaling")
	}
	if o.scaling && !changed("threads") {
		o.threads = min(o.threads, positive(bench.Feeds(int(o.batch))))
	}
	if o.peer != "" {
		if _, err := exec.LookPath(strings.Fields(o.peer)[0]); err != nil {
			return fmt.Errorf("--peer: %w", err)
		}
	}
	list, err := o.list()
	if err != nil {
		return err
	}
	for _, s := range list {
		m := o.measure(s, o.precisions[0])
		if err := m.Check(o.scaling); err != nil {
			return err
		}
		if len(o.systems) > 0 {
			if _, err := s.Network(m.Plan); err != nil {
				return err
			}
		}
	}
	return nil
}

// benchJSON is one measurement as json prints it.
type benchJSON struct {
	System         string  `json:"system,omitempty"` // of --systems
	L              int     `json:"L"`
	M              int     `json:"M"`
	Params         int     `json:"params"` // of one block; of --systems of the network
	Batch          int     `json:"batch"`
	Precision      string  `json:"precision"`
	StepS          float64 `json:"step_s"`
	ImagesPerS     float64 `json:"images_per_s"`
	GFLOPS         float64 `json:"gflops"`
	PeakGFLOPS     float64 `json:"peak_gflops"` // the best measured before and after
	GBPerS         float64 `json:"gb_per_s"`
	BandwidthGB    float64 `json:"bandwidth_gb_per_s"` // measured just before
	Bound          string  `json:"bound"`
	EvalImagesPerS float64 `json:"eval_images_per_s"`
	InputS         float64 `json:"input_s"`
	ResidentBytes  int     `json:"resident_bytes"`
	Allocations    int     `json:"allocations"` // by Go in all measured steps
	ISA            string  `json:"isa"`
	Instruction    string  `json:"instruction"` // whose peak it is
	Threads        int     `json:"threads"`
	Load           float64 `json:"load"` // of the machine in the minute before, in cores; 0: it was quiet
	// The ratios to float32, if it is measured beside another precision.
	SpeedToF32  float64 `json:"speed_to_f32,omitempty"`
	MemoryToF32 float64 `json:"memory_to_f32,omitempty"`
}

// means collects the values of a column, for the last rows of the table.
type means map[string][]float64

func (m means) add(name string, v float64) float64 {
	m[name] = append(m[name], v)
	return v
}

// geometric is the mean as a cell; empty if there is nothing to take it of.
func (m means) geometric(format, name string) string {
	if len(m[name]) == 0 {
		return ""
	}
	return fmt.Sprintf(format, geometricMean(m[name]))
}

func runBench(ctx context.Context, o benchOptions, stdout, stderr io.Writer) error {
	if o.has(search.PrecisionTF32) { // --device auto has found no GPU
		isa, err := trainer.ISA()
		if err != nil {
			return err
		}
		return o.lacksPrecision(isa)
	}
	b, err := newBencher(o, stdout, stderr)
	if err != nil {
		return err
	}
	b.columns = append(b.columns, o.stepColumns(b.list)...)
	var all []benchValues
	err = b.each(func(s space.System) ([]measured, error) {
		var options []bench.Options
		for _, precision := range o.precisions {
			options = append(options, o.measure(s, precision))
		}
		var peer peerStep
		var between func() error
		if o.peer != "" {
			between = func() (err error) {
				peer, err = b.runPeer(ctx, s.Pair())
				return err
			}
		}
		results, err := bench.Steps(ctx, between, options...)
		if err != nil && len(results) > 0 && o.steps > 1 {
			b.unsaid = append(b.unsaid, fmt.Sprintf("%s: not all of its %d steps are measured: its time is the median of "+
				"those that are", s.Label(), int(o.steps)))
		}
		rows := make([]measured, len(results))
		for i, r := range results {
			j, v := b.stepLine(s, i, results), benchValues{network: b.done, precision: o.precisions[i]}
			v.of = o.values(j, r, peer)
			rows[i] = measured{caption: o.caption(results), line: j, row: b.stepRow(s, j, v, peer)}
			all = append(all, v)
		}
		return rows, err
	})
	return b.end(err, b.summary(all))
}

// comparesF32 reports whether other precisions are measured beside float32.
func (o benchOptions) comparesF32() bool { return len(o.precisions) > 1 && o.has(search.PrecisionF32) }

// stepColumns are the columns of runBench.
func (o benchOptions) stepColumns(networks []space.System) (columns []report.Column) {
	if len(o.precisions) > 1 {
		columns = append(columns, report.Column{Header: "<precision"})
	}
	widest := "" // label of the last rows
	for _, line := range o.lines(networks) {
		if len(line.label) > len(widest) {
			widest = line.label
		}
	}
	columns = append(columns, report.Column{Header: "step (ms)", Widest: "12345.6"},
		report.Column{Header: "images/s", Widest: widest}, report.Column{Header: "GFLOP/s"},
		report.Column{Header: "% of peak"}, report.Column{Header: "GB/s", Widest: "123.4"},
		report.Column{Header: "% of bandwidth"}, report.Column{Header: "<bound", Widest: "arithmetic"},
		report.Column{Header: "eval", Widest: "1.2×"}, report.Column{Header: "input (%)"},
		report.Column{Header: "MB", Widest: "1234"})
	if o.comparesF32() {
		columns = append(columns, report.Column{Header: "speed to f32"}, report.Column{Header: "MB to f32"})
	}
	if o.peer != "" {
		columns = append(columns, report.Column{Header: "peer GFLOP/s"}, report.Column{Header: "ratio to peer"},
			report.Column{Header: "<peer", Widest: "bf16 contiguous_format"})
	}
	return columns
}

// caption says what all rows have in common.
func (o benchOptions) caption(results []bench.Result) string {
	text := fmt.Sprintf("batch %d, %s, ", int(o.batch), trainer.CPU())
	for i, r := range results {
		text += fmt.Sprintf("%s by %s, ", o.precisions[i], r.Instruction)
	}
	return text + fmt.Sprintf("%s, median of %s; means are geometric", report.Count(results[0].Threads, "thread"),
		report.Count(int(o.steps), "step"))
}

// stepLine is the measurement of a network in one of the precisions, for JSON.
func (b *bencher) stepLine(s space.System, precision int, results []bench.Result) benchJSON {
	r, p := results[precision], s.Pair()
	_, params, system := b.name(s, r.Params)
	j := benchJSON{system, p.L, p.M, params, int(b.batch), b.precisions[precision], r.Step.Seconds(), r.ImagesPerSecond,
		r.FlopsPerSecond() / 1e9, r.PeakFlops / 1e9,
		r.BytesPerSecond() / 1e9, r.Bandwidth / 1e9, r.Bound(), r.EvalPerSecond, r.Input.Seconds(), r.Resident,
		r.Allocations, r.ISA, r.Instruction, r.Threads, b.load, 0, 0}
	if b.comparesF32() && j.Precision != search.PrecisionF32 {
		f32 := results[slices.Index(b.precisions, search.PrecisionF32)]
		j.SpeedToF32 = f32.Step.Seconds() / r.Step.Seconds()
		if f32.Resident > 0 && r.Resident > 0 {
			j.MemoryToF32 = float64(r.Resident) / float64(f32.Resident)
		}
	}
	return j
}

// values are those that the last rows summarise.
func (o benchOptions) values(j benchJSON, r bench.Result, peer peerStep) map[string]float64 {
	of := map[string]float64{"GFLOP/s": j.GFLOPS, "% of peak": 100 * j.GFLOPS / j.PeakGFLOPS}
	if j.SpeedToF32 > 0 {
		of["speed to f32"] = j.SpeedToF32
	}
	if j.MemoryToF32 > 0 {
		of["MB to f32"] = j.MemoryToF32
	}
	if peer.seconds > 0 {
		of["peer GFLOP/s"] = r.Flops / peer.seconds / 1e9
		of["ratio to peer"] = peer.seconds / j.StepS
	}
	return of
}

// stepRow is the measurement as a row.
func (b *bencher) stepRow(s space.System, j benchJSON, v benchValues, peer peerStep) []string {
	row, _, _ := b.name(s, j.Params)
	if len(b.precisions) > 1 {
		row = append(row, j.Precision)
	}
	row = append(row, fmt.Sprintf("%.1f", 1e3*j.StepS), fmt.Sprintf("%.0f", j.ImagesPerS), v.cell("GFLOP/s"),
		v.cell("% of peak"), fmt.Sprintf("%.1f", j.GBPerS), fmt.Sprintf("%.0f", 100*j.GBPerS/j.BandwidthGB), j.Bound,
		fmt.Sprintf("%.1f×", j.EvalImagesPerS/j.ImagesPerS), fmt.Sprintf("%.1f", 100*j.InputS/j.StepS),
		fmt.Sprintf("%.0f", float64(j.ResidentBytes)/1e6))
	if b.comparesF32() {
		row = append(row, v.cell("speed to f32"), v.cell("MB to f32"))
	}
	if b.peer != "" {
		row = append(row, v.cell("peer GFLOP/s"), v.cell("ratio to peer"), peer.way)
	}
	return row
}

// lacksPrecision is the error of a device that does not have the precision.
func (o benchOptions) lacksPrecision(arithmetic string) error {
	err := trainer.PrecisionError{Precision: o.precisions[0], Devices: arithmetic}
	return advisedError{fmt.Errorf("%w: choose such a GPU by --device", err)}
}

// quietLoad is the load of a machine on which hardly anything else runs, in cores.
const quietLoad = 0.5

// machineLoad is the mean number of threads that ran or waited for a core in the last minute.
func machineLoad() float64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return math.Round(100*float64(info.Loads[0])/65536) / 100
}

// list is what is to be measured.
func (o benchOptions) list() (systems []space.System, err error) {
	for _, name := range o.systems {
		s, err := space.ParseSystem(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		systems = append(systems, s)
	}
	if len(systems) > 0 {
		return systems, nil
	}
	for _, p := range o.pairs.pairs {
		systems = append(systems, space.PairSystem(p))
	}
	return systems, nil
}

func (o benchOptions) has(precision string) bool { return slices.Contains(o.precisions, precision) }

func (o benchOptions) measure(s space.System, precision string) bench.Options {
	var plan space.Plan // Figure 3's
	if len(o.systems) > 0 {
		plan = space.Plan{Layout: space.Stages, In: space.Shape{C: 3, H: 32, W: 32}, Classes: 10}
		if s.Family == space.FamilyResNet || s.DoublesL {
			plan = space.Plan{Layout: space.ImageNet, In: space.Shape{C: 3, H: 224, W: 224}, Classes: 1000}
		}
	}
	m := bench.Options{System: s, Plan: plan, Batch: int(o.batch), Threads: int(o.threads), Steps: int(o.steps)}
	if precision != search.PrecisionF32 { // which has "", as in a stored study
		m.Precision = precision
	}
	return m
}

// scalingJSON is one measurement of --scaling.
type scalingJSON struct {
	L           int     `json:"L"`
	M           int     `json:"M"`
	Batch       int     `json:"batch"`
	Threads     int     `json:"threads"`
	Precision   string  `json:"precision"`
	OnePerS     float64 `json:"one_images_per_s"`
	TrialsPerS  float64 `json:"trials_images_per_s"`
	TrialsBy    float64 `json:"trials_ratio"`
	ThreadsPerS float64 `json:"threads_images_per_s"`
	ThreadsBy   float64 `json:"threads_ratio"`
	Arithmetic  float64 `json:"arithmetic_ratio"` // of multiply–adds alone
	Rows        float64 `json:"rows_ratio"`       // of the micro-kernels on data in the caches
	Copy        float64 `json:"copy_ratio"`       // of a copy of memory
}

func runScaling(ctx context.Context, o benchOptions, stdout, stderr io.Writer) error {
	b, err := newBencher(o, stdout, stderr)
	if err != nil {
		return err
	}
	n := int(o.threads)
	b.columns = []report.Column{b.columns[0], b.columns[1]} // without the parameters
	for _, header := range []string{"1 trial, 1 thread (images/s)", fmt.Sprintf("%d trials, 1 thread each", n), "ratio",
		fmt.Sprintf("1 trial, %d threads", n), "ratio", "arithmetic", "rows", "copy"} {
		b.columns = append(b.columns, report.Column{Header: header})
	}
	err = b.each(func(s space.System) ([]measured, error) {
		p := s.Pair()
		r, err := bench.Scaling(ctx, o.measure(s, o.precisions[0]))
		if err != nil {
			return nil, err
		}
		var m measured
		m.caption = fmt.Sprintf("batch %d, %s, %v by %s, median of %s", int(o.batch), trainer.CPU(), &o.precisions,
			r.Instruction, report.Count(int(o.steps), "round"))
		m.line = scalingJSON{p.L, p.M, int(o.batch), n, o.precisions[0], r.One, r.Trials, r.TrialsRatio, r.Threads, r.ThreadsRatio,
			r.ArithmeticRatio, r.RowsRatio, r.CopyRatio}
		m.row = []string{strconv.Itoa(p.L), strconv.Itoa(p.M), fmt.Sprintf("%.0f", r.One),
			fmt.Sprintf("%.0f", r.Trials), fmt.Sprintf("%.2f", r.TrialsRatio), fmt.Sprintf("%.0f", r.Threads),
			fmt.Sprintf("%.2f", r.ThreadsRatio), fmt.Sprintf("%.2f", r.ArithmeticRatio),
			fmt.Sprintf("%.2f", r.RowsRatio), fmt.Sprintf("%.2f", r.CopyRatio)}
		return []measured{m}, nil
	})
	return b.end(err, nil)
}
