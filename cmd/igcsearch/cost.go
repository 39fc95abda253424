package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/trainer"
	"igcsearch/trainer/graph"
)

// Measuring takes about so long: of a dry run, and of a run, which it delays.
const (
	dryMeasure = 10 * time.Second
	runMeasure = time.Second
)

// What a database takes without a trial, and for each epoch: measured with 1,440
// epochs, which take 118,784 bytes. The store keeps the last two checkpoints of a
// trial, one for when the other is damaged.
const (
	emptyBytes  = 102_400
	epochBytes  = 82
	checkpoints = 2
)

// standing returns the trials of a plan as a database has them; db is nil if there
// is none. A study of the same name with other settings is an error.
func (p *prepared) standing(ctx context.Context, db *store.DB, path string) ([]search.Trial, error) {
	trials := slices.Clone(p.trials)
	if db == nil {
		return trials, nil
	}
	there, err := db.Study(ctx, p.study.Name)
	if errors.Is(err, store.ErrNoStudy) {
		return trials, nil
	}
	if err != nil {
		return nil, err
	}
	if diff := search.Diff(there, p.study); len(diff) > 0 {
		return nil, &store.ConflictError{Study: p.study.Name, Database: path, Diff: diff}
	}
	stored, err := db.Trials(ctx, p.study.Name)
	if err != nil {
		return nil, err
	}
	at := map[search.Key]search.Trial{}
	for _, t := range stored {
		at[t.Key] = t
	}
	for i, t := range trials {
		if s, ok := at[t.Key]; ok {
			trials[i] = s
		}
	}
	return trials, nil
}

// cost is what is left of a study to train, and what it takes.
type cost struct {
	*prepared
	workers  int
	trials   []search.Trial // as they stand
	measured []trainer.Cost
	took     time.Duration // to measure them
	had      float64       // share of its cores that the measurement had
	forecast search.Forecast

	left, epochs, evaluations int // trials that are not finished; theirs
	done                      int // epochs
	// share of the rest that max_epochs lets train.
	share float64
}

// newCost measures networks, as many as the time is enough for; the others are
// estimated by their multiply–adds. With recorded, it measures none if there are
// epochs on record.
func newCost(ctx context.Context, p *prepared, trials []search.Trial, workers int, limit time.Duration, recorded bool) (*cost, error) {
	c := &cost{prepared: p, workers: workers, trials: trials}
	c.count()
	known := slices.ContainsFunc(trials, func(t search.Trial) bool { return stands(t).Measured > 0 })
	if c.left > 0 && !(recorded && known) {
		var err error
		begin, used := time.Now(), processorTime()
		if c.measured, err = p.train.Costs(ctx, p.study, c.choose(limit), workers, limit); err != nil {
			return nil, err
		}
		c.took, used = time.Since(begin), processorTime()-used
		c.had = used.Seconds() / c.took.Seconds() / float64(min(workers, runtime.GOMAXPROCS(0)))
	}
	c.predict()
	return c, nil
}

// count counts what is done and what is left.
func (c *cost) count() {
	for _, t := range c.trials {
		c.done += t.Epoch
		if t.Status.Finished() || t.Status == search.Failed {
			continue
		}
		c.left++
		c.epochs += t.Epochs - t.Epoch
		c.evaluations += c.evaluationsAfter(t.Epochs) - c.evaluationsAfter(t.Epoch)
	}
	c.share = 1
	if most := c.study.MaxEpochs; most > 0 && c.epochs > 0 {
		if to := max(0, most-c.done); to < c.epochs {
			c.share = float64(to) / float64(c.epochs)
			c.epochs, c.evaluations = to, int(math.Ceil(c.share*float64(c.evaluations)))
		}
	}
}

// predict estimates the time by what was measured, else by what is recorded, which
// another machine may have trained.
func (c *cost) predict() {
	of := map[space.System]trainer.Cost{}
	for _, m := range c.measured {
		of[m.System] = m
	}
	works := make([]search.Work, len(c.trials))
	for i, t := range c.trials {
		works[i] = stands(t)
		if c.measured == nil {
			continue
		}
		works[i].Measured, works[i].Seconds = 0, 0
		if m, ok := of[t.System]; ok {
			works[i].Measured, works[i].Seconds = float64(t.Epochs), c.training(m)
		}
	}
	c.forecast = search.Predict(works, min(c.workers, c.left))
	c.forecast.Seconds *= c.share
}

// training are the seconds of a whole training.
func (p *prepared) training(m trainer.Cost) float64 {
	return m.Epoch*float64(p.study.Epochs) + m.Evaluation*float64(p.evaluationsAfter(p.study.Epochs))
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// shared tells that other programs slowed the measurement down, "" if they hardly
// did: the last network is measured beside none, which is no reason.
func (c *cost) shared() string {
	if c.measured == nil || c.gpus > 0 || c.took < time.Second/2 || c.had <= 0 || c.had > 0.6 { // of moments it says nothing
		return ""
	}
	return fmt.Sprintf("; other programs use the cores, alone it may take %s", duration(c.forecast.Seconds*c.had))
}

// choose returns networks that are left to train, from the smallest to the largest:
// no more than can be measured in the time.
func (c *cost) choose(limit time.Duration) []space.System {
	var list []search.Trial
	for _, t := range c.trials {
		if !t.Status.Finished() && t.Status != search.Failed && !slices.ContainsFunc(list, func(o search.Trial) bool { return o.System == t.System }) {
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, func(a, b search.Trial) int { return cmp.Compare(a.MultiplyAdds, b.MultiplyAdds) })
	n := min(len(list), max(2, c.workers*int(limit/time.Second)))
	chosen := make([]space.System, n)
	for i := range chosen {
		chosen[i] = list[i*(len(list)-1)/max(1, n-1)].System
	}
	return chosen
}

// evaluationsAfter is how many a trial has had after so many epochs.
func (p *prepared) evaluationsAfter(epochs int) int {
	n := epochs / p.study.EvaluateEvery
	if epochs == p.study.Epochs && epochs%p.study.EvaluateEvery > 0 {
		n++
	}
	return n
}

// steps of an epoch, and the pictures of each.
func (p *prepared) steps() (steps, batch int) {
	batch = min(p.study.Batch, p.data.Train)
	return p.data.Train / batch, batch
}

// databaseBytes is how large the database gets, about: epochs, and checkpoints of
// what trains and of what is kept.
func (c *cost) databaseBytes() float64 {
	// A checkpoint has the weights and their momentum, and little more.
	perParam := 8.0
	if c.study.WeightAverage > 0 {
		perParam += 4
	}
	of := map[space.System]float64{}
	for _, m := range c.measured {
		of[m.System] = float64(m.StateBytes)
	}
	kept := 0.0
	if c.study.KeepCheckpoints {
		kept += checkpoints
	}
	if c.study.KeepBest {
		kept++
	}
	var largest, states float64
	for _, t := range c.trials {
		bytes, ok := of[t.System]
		if !ok {
			bytes = perParam * float64(t.Params)
		}
		largest = max(largest, bytes)
		states += kept * bytes
	}
	states += checkpoints * float64(min(c.workers, c.left)) * largest
	if quota := float64(c.study.CheckpointQuota); quota > 0 {
		states = min(states, quota)
	}
	return emptyBytes + states + epochBytes*float64(len(c.trials)*c.study.Epochs)
}

// amount writes a number for people: "47.0 million", "8192".
func amount(n int) string {
	if n >= 1e6 {
		return fmt.Sprintf("%.1f million", float64(n)/1e6)
	}
	return fmt.Sprint(n)
}

func bytesText(b float64) string {
	switch {
	case b >= 1e9:
		return fmt.Sprintf("%.1f GB", b/1e9)
	case b >= 1e6:
		return fmt.Sprintf("%.1f MB", b/1e6)
	}
	return fmt.Sprintf("%.0f kB", math.Ceil(b/1e3))
}

// duration is long for people: hours, or two smaller units.
func duration(seconds float64) string {
	if seconds >= 3600 && seconds < 1e9 {
		return fmt.Sprintf("%.1f hours", seconds/3600)
	}
	if seconds < 1 {
		return "a second"
	}
	return span(seconds)
}

// atMost is put before what a strategy or a budget may make less.
func (c *cost) atMost() string {
	if s := c.study; s.Strategy != "" || s.MaxTrials > 0 || s.MaxEpochs > 0 || s.MaxDeviceHours > 0 || s.MaxWallTime != "" {
		return "at most "
	}
	return ""
}

// line is one line for the start of a run, "" if nothing is left.
func (c *cost) line() string {
	if c.left == 0 {
		return ""
	}
	steps, batch := c.steps()
	by := "by the epochs that are recorded"
	if c.measured != nil {
		by = fmt.Sprintf("by a few steps of %d of its networks", len(c.measured))
	}
	return fmt.Sprintf("%s: %s%s, %s, %s training pictures to go: roughly %s (%s, %d at once%s); the database gets about %s",
		c.study.Name, c.atMost(), count(c.left, "trial"), count(c.epochs, "epoch"), amount(c.epochs*steps*batch), duration(c.forecast.Seconds), by,
		min(c.workers, c.left), c.shared(), bytesText(c.databaseBytes()))
}

// report is what a dry run prints below the headline.
func (c *cost) report() string {
	var b strings.Builder
	row := func(what, format string, a ...any) { fmt.Fprintf(&b, "%-10s%s\n", what, fmt.Sprintf(format, a...)) }
	if c.done > 0 {
		row("done", "%d of %s, %d of %s", len(c.trials)-c.left, count(len(c.trials), "trial"), c.done, count(len(c.trials)*c.study.Epochs, "epoch"))
	}
	if c.left == 0 {
		row("to train", "nothing: the study is complete")
		return b.String()
	}
	steps, batch := c.steps()
	row("to train", "%s%s, %s of %s of %s: %s training pictures", c.atMost(), count(c.left, "trial"), count(c.epochs, "epoch"), count(steps, "step"),
		count(batch, "picture"), amount(c.epochs*steps*batch))
	also := ""
	if c.study.BNStatistics == search.BNPrecise {
		also = fmt.Sprintf(", after %d training pictures for the statistics", min(c.study.BNPictures, c.data.Train)/batch*batch)
	}
	row("evaluate", "%s, %s each%s", count(c.evaluations, "time"), count(c.data.Validation+c.data.Test, "picture"), also)
	on := "one on each core"
	if c.gpus > 0 {
		on = "sharing " + count(c.gpus, "GPU")
	}
	row("time", "%s%s, evaluation included, with %d at once, %s; by a few steps of %d of its networks, measured in %.0f s%s",
		c.atMost(), duration(c.forecast.Seconds), min(c.workers, c.left), on, len(c.measured), c.took.Seconds(), c.shared())
	what := "epochs, and checkpoints of the trials that train"
	if c.study.KeepCheckpoints || c.study.KeepBest {
		what = "epochs, and checkpoints of all trials"
	}
	row("database", "about %s: %s", bytesText(c.databaseBytes()), what)

	r := report.Results{Study: c.study}
	t := newTable(append(r.NameHeader(), "step (ms)", "evaluation (s)", "one training")...)
	order := c.study.SystemList()
	slices.SortFunc(c.measured, func(a, b trainer.Cost) int {
		return cmp.Compare(slices.Index(order, a.System), slices.Index(order, b.System))
	})
	for _, m := range c.measured {
		i := slices.IndexFunc(c.trials, func(t search.Trial) bool { return t.System == m.System })
		t.Add(append(r.Name(m.System, c.trials[i].Params), fmt.Sprintf("%.1f", 1e3*m.Epoch/float64(steps)), fmt.Sprintf("%.1f", m.Evaluation), duration(c.training(m)))...)
	}
	fmt.Fprintf(&b, "\n%s", t)
	return b.String()
}

// dryRun prints what a run would do.
func dryRun(ctx context.Context, o runOptions, p *prepared, stdout, stderr io.Writer) error {
	if err := notAccess(o.db); err != nil {
		return err
	}
	db, err := store.OpenReadOnly(ctx, o.db)
	info, _ := os.Stat(o.db)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err != nil && info != nil && info.Size() == 0: // run would make it
		db = nil
	case err != nil:
		return err
	default:
		defer db.Close()
	}
	trials, err := p.standing(ctx, db, o.db)
	if err != nil {
		return err
	}
	workers, err := p.workers(ctx, o.workers, func() ([]search.Trial, error) { return trials, nil })
	if err != nil {
		return err
	}
	c, err := newCost(ctx, p, trials, workers, dryMeasure, false)
	if err != nil {
		return err
	}
	if c.left > 0 {
		report.Warn(stderr, p.study.Name, p.fewSteps())
	}
	_, err = fmt.Fprintf(stdout, "%s\n\n%s", p.headline(workers), c.report())
	return err
}

// fewSteps warns of trainings that end before their running statistics have
// forgotten how they began.
func (p *prepared) fewSteps() []string {
	// So much of the start is no matter.
	const noticeable = 0.05
	if p.study.BNStatistics == search.BNPrecise {
		return nil
	}
	perEpoch, _ := p.steps()
	steps := p.study.Epochs * perEpoch
	most := 0.0
	for _, system := range p.study.SystemList() {
		net, err := system.Network(p.study.Plan(p.data.Shape, len(p.data.Classes)))
		if err != nil {
			continue // training it will tell
		}
		factor := graph.RunningFactor
		if slices.ContainsFunc(net.Layers, func(l space.Layer) bool { return l.Kind == space.Add }) {
			factor = graph.RunningFactorIdent
		}
		most = max(most, math.Pow(factor, float64(steps)))
	}
	if most <= noticeable {
		return nil
	}
	return []string{fmt.Sprintf(`a training has %s only, after which %.0f %% of the running mean and variance that it is evaluated by are still their first values, 0 and 1: set bn_statistics = "precise", which does without them, or train for more steps`,
		count(steps, "step"), 100*most)}
}
