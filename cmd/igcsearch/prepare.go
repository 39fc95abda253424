package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"

	"igcsearch/cmd/igcsearch/cluster"
	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/search/strategy"
	"igcsearch/trainer"
	"igcsearch/trainer/dataset"
	"igcsearch/trainer/gpu"
)

// machine is what this process trains on. run and both kinds of worker open it
// in the same way.
type machine struct {
	train   *trainer.Trainer
	gpus    int            // 0: the processor trains
	attempt search.Attempt // what is recorded of every attempt
}

func openMachine(dataDir string, on device, stderr io.Writer) (*machine, error) {
	gpus, err := on.gpus(stderr)
	if err != nil {
		return nil, err
	}
	names, isa, err := arithmetic(gpus)
	if err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // "" is stored as unknown
	return &machine{
		train: trainer.New(trainer.Options{DataDir: dataDir, Threads: 1, Devices: gpu.On(gpus)}), gpus: len(gpus),
		attempt: search.Attempt{
			Commit: build().commit, GoVersion: runtime.Version(), CPU: trainer.CPU(), ISA: isa,
			Device: names, Host: host, PID: os.Getpid(), Args: os.Args, Job: cluster.JobName(os.Getenv),
		},
	}, nil
}

// workers returns how many trials of a study train at once: what the flag or
// the study says, or else what is fastest on the devices.
func (m *machine) workers(ctx context.Context, flag automatic, study search.Study) (int, error) {
	if n := cmp.Or(flag.n, study.Workers); !flag.auto && n > 0 {
		return n, nil
	}
	return m.train.Workers(ctx, study)
}

// prepared is a study whose pictures are loaded, on the machine that trains it.
type prepared struct {
	*machine
	study   search.Study // with what its pictures say of it
	decides search.Strategy
	trials  []search.Trial
	data    trainer.Data
	change  string // how its plan changes the stored study, see changeOf; set by standing
}

// prepare loads the pictures of a study.
func (m *machine) prepare(ctx context.Context, study search.Study, stderr io.Writer) (*prepared, error) {
	decides, err := strategy.New(study)
	if err != nil {
		return nil, err
	}
	if err := m.train.Check(study); err != nil {
		return nil, fmt.Errorf("%s: %w", study.Name, err)
	}
	study, trials, data, err := planned(ctx, m.train, study, stderr)
	if err != nil {
		return nil, err
	}
	return &prepared{machine: m, study: study, decides: decides, trials: trials, data: data}, nil
}

// planned loads the pictures of a study and returns its trials. The study it
// returns says which pictures it is of.
func planned(
	ctx context.Context, train *trainer.Trainer, study search.Study, stderr io.Writer,
) (search.Study, []search.Trial, trainer.Data, error) {
	data, err := train.Load(ctx, study)
	if err != nil {
		return study, nil, data, err
	}
	identify(&study, data, stderr)
	if out := study.LeftOut(); out != "" {
		report.Warn(stderr, study.Name, []string{"per_family leaves out " + out + " within the tolerance, the narrower ones"})
	}
	return study, study.Trials(data.Shape, len(data.Classes)), data, nil
}

// workers returns how many trials train at once. On GPUs that is not more than
// have still to be trained, because the others would hold memory for nothing. If
// the study is complete, it does not measure what is fastest. stored returns the
// trials as they stand.
func (p *prepared) workers(ctx context.Context, flag automatic, stored func() ([]search.Trial, error)) (int, error) {
	given := !flag.auto && cmp.Or(flag.n, p.study.Workers) > 0
	if given || p.gpus == 0 {
		return p.machine.workers(ctx, flag, p.study)
	}
	trials, err := stored()
	if err != nil {
		return 0, err
	}
	left := 0
	for _, t := range trials {
		if !t.Status.Finished() {
			left++
		}
	}
	if left == 0 {
		return 1, nil
	}
	n, err := p.machine.workers(ctx, flag, p.study)
	return min(n, left), err
}

// run trains the trials with a runner and shows how it goes. The first
// interrupt, which ends parent, is answered with a note; ctx may end earlier.
func (p *prepared) run(parent, ctx context.Context, r search.Runner, show progress.Display) (search.Summary, error) {
	defer show.Close()
	defer context.AfterFunc(parent, func() {
		show.Note("stopping at the next batch; interrupt again to end at once")
	})()
	also := r.Notify
	r.Trainer, r.Attempt, r.Notify = advisedTrainer{p.train}, p.attempt, func(e search.Event) {
		show.Event(e)
		if also != nil {
			also(e)
		}
	}
	return r.Run(ctx, p.study, p.decides, p.trials)
}

// headline says what is about to be trained, and on what.
func (p *prepared) headline(workers int) string {
	on := p.attempt.ISA
	if p.gpus > 0 {
		on = fmt.Sprintf("%s (%s)", report.Count(p.gpus, "GPU"), p.attempt.Device)
	}
	if p.study.Precision != "" {
		on += ", " + p.study.Precision
	}
	crossed, epochs := networks(p.study), report.Count(p.study.Epochs, "epoch")
	for _, axis := range p.study.Axes {
		crossed += fmt.Sprintf(" × %s", axis)
		if axis.Key == "epochs" {
			epochs = "up to " + epochs
		}
	}
	return fmt.Sprintf("%s: %s × %s, %s each, on %s (%s); %s, %s",
		p.study.Name, crossed, report.Count(len(p.study.Seeds), "seed"), epochs,
		report.DatasetLabel(p.study.Dataset), pictures(p.data), report.Count(workers, "worker"), on)
}

// identify notes in a study which pictures it is of, and warns of files that are left out.
func identify(s *search.Study, d trainer.Data, stderr io.Writer) {
	s.DataSum, s.Unreadable = d.Sum, len(d.Unreadable)
	report.Warn(stderr, s.Name, leftOut(d))
	if len(d.Unofficial) > 0 {
		report.Warn(stderr, s.Name, []string{fmt.Sprintf("these files have other checksums than the published ones of %s: "+
			"%s: the results are of other pictures than those of other people", s.Dataset,
			strings.Join(d.Unofficial, ", "))})
	}
	if s.Batch > d.Train {
		report.Warn(stderr, s.Name, []string{fmt.Sprintf("batch is %d, but there are %s: a step takes them all, so a "+
			"training of %s has %s", s.Batch, report.Count(d.Train, "training picture"), report.Count(s.Epochs, "epoch"),
			report.Count(s.Epochs, "step"))})
	}
}

// leftOut says which files of a folder are no pictures of a study.
func leftOut(d trainer.Data) (list []string) {
	const named = 3
	const all = "'igcsearch data check folder --data DIR' lists them all"
	if n := len(d.Unreadable); n > 0 {
		verb := "are"
		if n == 1 {
			verb = "is"
		}
		var names []string
		for _, f := range d.Unreadable[:min(n, named)] {
			names = append(names, fmt.Sprintf("%s (%s)", f.Name, f.Reason))
		}
		text := fmt.Sprintf("%s cannot be read and %s left out: %s", report.Count(n, "picture"), verb,
			strings.Join(names, ", "))
		if n > named {
			text += ", …: " + all
		}
		list = append(list, text)
	}
	if n := len(d.Passed); n > 0 {
		verb := "are"
		if n == 1 {
			verb = "is"
		}
		list = append(list, fmt.Sprintf("%s %s passed over: %s: %s", report.Count(n, "file"), verb, byKind(d.Passed), all))
	}
	return list
}

// byKind counts files that are passed over by their kind, the most frequent first.
func byKind(files []dataset.LeftOut) string {
	count := map[string]int{}
	for _, f := range files {
		count[f.Kind]++
	}
	var parts []string
	for _, kind := range slices.SortedFunc(maps.Keys(count), func(a, b string) int {
		return cmp.Or(cmp.Compare(count[b], count[a]), cmp.Compare(a, b))
	}) {
		parts = append(parts, fmt.Sprintf("%d %s", count[kind], kind))
	}
	return strings.Join(parts, ", ")
}

// pictures says how many pictures are used for what.
func pictures(d trainer.Data) string {
	parts := []string{fmt.Sprintf("%d training", d.Train), fmt.Sprintf("%d test", d.Test)}
	if d.Validation > 0 {
		parts = slices.Insert(parts, 1, fmt.Sprintf("%d validation", d.Validation))
	}
	return strings.Join(parts, ", ") + " pictures"
}

// networks counts those of a study, as pairs if it is of pairs.
func networks(s search.Study) string {
	if s.OfPairs() {
		return report.Count(len(s.Pairs), "pair")
	}
	return report.Count(len(s.SystemList()), "network")
}
