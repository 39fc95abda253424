package progress

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/trainer"
	"igcsearch/trainer/graph"
)

// Plan is a study that is about to be trained.
type Plan struct {
	Study   search.Study
	Data    trainer.Data
	Trials  []search.Trial // as they stand
	Workers int            // how many train at once
	GPUs    int            // 0: the processor trains
}

// Estimate is what is left of a plan, and what that takes.
type Estimate struct {
	Plan
	Measured []trainer.Cost // of some of the networks
	Left     int            // trials that have still to be trained

	epochs, evaluations int             // of the trials that are left
	done                int             // epochs
	share               float64         // the part of the rest that max_epochs allows
	took                time.Duration   // to measure the networks
	had                 float64         // the part of the cores that the measurement got
	forecast            search.Forecast // of the rest
}

// A database takes emptyBytes without a trial and epochBytes for each epoch.
// This was measured with 1,440 epochs, which take 118,784 bytes. The store
// keeps the last two checkpoints of a trial, in case that one is damaged.
const (
	emptyBytes  = 102_400
	epochBytes  = 82
	checkpoints = 2
)

// NewEstimate measures networks of a plan for about limit, as many as that is
// enough for. The others are estimated by their multiply–adds. If recorded is
// set and epochs are stored, it measures nothing and goes by those epochs.
func NewEstimate(
	ctx context.Context, p Plan, train *trainer.Trainer, limit time.Duration, recorded bool,
) (*Estimate, error) {
	e := &Estimate{Plan: p}
	e.count()
	known := slices.ContainsFunc(p.Trials, func(t search.Trial) bool { return stored(t).Measured > 0 })
	if e.Left > 0 && !(recorded && known) {
		var err error
		begin, used := time.Now(), processorTime()
		if e.Measured, err = train.Costs(ctx, p.Study, p.choose(limit), p.Workers, limit); err != nil {
			return nil, err
		}
		e.took, used = time.Since(begin), processorTime()-used
		e.had = used.Seconds() / e.took.Seconds() / float64(min(p.Workers, runtime.GOMAXPROCS(0)))
	}
	e.predict()
	return e, nil
}

// count counts what is done and what is left.
func (e *Estimate) count() {
	for _, t := range e.Trials {
		e.done += t.Epoch
		if open(t) {
			e.Left++
			e.epochs += t.Epochs - t.Epoch
			e.evaluations += e.evaluationsAfter(t.Epochs, t.Epochs) - e.evaluationsAfter(t.Epoch, t.Epochs)
		}
	}
	e.share = 1
	if most := e.Study.MaxEpochs; most > 0 && e.epochs > 0 {
		if to := max(0, most-e.done); to < e.epochs {
			e.share = float64(to) / float64(e.epochs)
			e.epochs, e.evaluations = to, int(math.Ceil(e.share*float64(e.evaluations)))
		}
	}
}

// predict estimates the time by what was measured. If nothing was, it goes by
// the epochs that are stored, which another machine may have trained.
func (e *Estimate) predict() {
	of := map[space.System]trainer.Cost{}
	for _, m := range e.Measured {
		of[m.System] = m
	}
	works := make([]search.Work, len(e.Trials))
	for i, t := range e.Trials {
		works[i] = stored(t)
		if e.Measured == nil {
			continue
		}
		works[i].Measured, works[i].Seconds = 0, 0
		if m, ok := of[t.System]; ok {
			works[i].Measured, works[i].Seconds = float64(t.Epochs), e.training(m, t.Epochs)
		}
	}
	e.forecast = search.Predict(works, min(e.Workers, e.Left))
	e.forecast.Seconds *= e.share
}

// Training returns the seconds of a whole training, the longest if the study has several lengths.
func (p Plan) Training(m trainer.Cost) float64 { return p.training(m, p.Study.Epochs) }

func (p Plan) training(m trainer.Cost, epochs int) float64 {
	return m.Epoch*float64(epochs) + m.Evaluation*float64(p.evaluationsAfter(epochs, epochs))
}

// evaluationsAfter returns how often a trial of some length was evaluated after so many epochs.
func (p Plan) evaluationsAfter(epochs, length int) int {
	n := epochs / p.Study.EvaluateEvery
	if epochs == length && epochs%p.Study.EvaluateEvery > 0 {
		n++
	}
	return n
}

// Steps returns the steps of an epoch and the pictures of each step, of the largest batch if the study has several.
func (p Plan) Steps() (steps, batch int) {
	batch = min(p.Study.Batch, p.Data.Train)
	return p.Data.Train / batch, batch
}

// choose returns networks that are left to train, from the smallest to the
// largest, and no more than can be measured in the time.
func (p Plan) choose(limit time.Duration) []space.System {
	var list []search.Trial
	for _, t := range p.Trials {
		if open(t) && !slices.ContainsFunc(list, func(o search.Trial) bool { return o.System == t.System }) {
			list = append(list, t)
		}
	}
	slices.SortStableFunc(list, func(a, b search.Trial) int { return cmp.Compare(a.MultiplyAdds, b.MultiplyAdds) })
	n := min(len(list), max(2, p.Workers*int(limit/time.Second)))
	chosen := make([]space.System, n)
	for i := range chosen {
		chosen[i] = list[i*(len(list)-1)/max(1, n-1)].System
	}
	return chosen
}

// processorTime returns how long this process has used the cores so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// databaseBytes estimates the size of the database: the epochs, and the
// checkpoints of the trials that train and of those that are kept.
func (e *Estimate) databaseBytes() float64 {
	// A checkpoint has the weights and their momentum, and little more.
	perParam := 8.0
	if e.Study.WeightAverage > 0 {
		perParam += 4
	}
	of := map[space.System]float64{}
	for _, m := range e.Measured {
		of[m.System] = float64(m.StateBytes)
	}
	kept := 0.0
	if e.Study.KeepCheckpoints {
		kept++
	}
	if e.Study.KeepBest {
		kept++
	}
	var largest, states float64
	for _, t := range e.Trials {
		bytes, ok := of[t.System]
		if !ok {
			bytes = perParam * float64(t.Params)
		}
		largest = max(largest, bytes)
		states += kept * bytes
	}
	states += checkpoints * float64(min(e.Workers, e.Left)) * largest
	if quota := float64(e.Study.CheckpointQuota); quota > 0 {
		states = min(states, quota)
	}
	return emptyBytes + states + epochBytes*float64(e.allEpochs())
}

// allEpochs counts the epochs of all trials, trained or not.
func (p Plan) allEpochs() (n int) {
	for _, t := range p.Trials {
		n += t.Epochs
	}
	return n
}

// shared says that other programs slowed the measurement down. It is "" if they
// hardly did, and if the measurement was too short to tell. One network that is
// still measured when all others are done leaves cores idle, too few to matter.
func (e *Estimate) shared() string {
	if e.Measured == nil || e.GPUs > 0 || e.took < time.Second/2 || e.had <= 0 || e.had > 0.6 {
		return ""
	}
	return fmt.Sprintf("; other programs use the cores, alone it may take %s", Rough(e.forecast.Seconds*e.had))
}

// atMost is put before what a strategy or a budget may reduce.
func (p Plan) atMost() string {
	s := p.Study
	limited := s.MaxTrials > 0 || s.MaxEpochs > 0 || s.MaxDeviceHours > 0 || s.MaxWallTime != ""
	if s.Strategy != "" || limited {
		return "at most "
	}
	return ""
}

// Line is one line for the start of a run. It is "" if nothing is left.
func (e *Estimate) Line() string {
	if e.Left == 0 {
		return ""
	}
	steps, batch := e.Steps()
	by := "by the epochs that are recorded"
	if e.Measured != nil {
		by = fmt.Sprintf("by a few steps of %d of its networks", len(e.Measured))
	}
	return fmt.Sprintf("%s: %s%s, %s, %s training pictures to go: roughly %s (%s, %d at once%s); "+
		"the database gets about %s",
		e.Study.Name, e.atMost(), report.Count(e.Left, "trial"), report.Count(e.epochs, "epoch"),
		number(e.epochs*steps*batch), Rough(e.forecast.Seconds), by, min(e.Workers, e.Left), e.shared(),
		size(e.databaseBytes()))
}

// Report describes the estimate in several lines.
func (e *Estimate) Report() string {
	var b strings.Builder
	row := func(what, format string, a ...any) { fmt.Fprintf(&b, "%-10s%s\n", what, fmt.Sprintf(format, a...)) }
	if e.done > 0 {
		row("done", "%d of %s, %d of %s", len(e.Trials)-e.Left, report.Count(len(e.Trials), "trial"),
			e.done, report.Count(e.allEpochs(), "epoch"))
	}
	if e.Left == 0 {
		row("to train", "nothing: the study is complete")
		return b.String()
	}
	steps, batch := e.Steps()
	each := fmt.Sprintf("of %s of %s", report.Count(steps, "step"), report.Count(batch, "picture"))
	if e.Study.Axes.Has("batch") {
		each = fmt.Sprintf("of batches of up to %s", report.Count(batch, "picture"))
	}
	row("to train", "%s%s, %s %s: %s training pictures", e.atMost(), report.Count(e.Left, "trial"),
		report.Count(e.epochs, "epoch"), each, number(e.epochs*steps*batch))
	also := ""
	if e.Study.BNStatistics == search.BNPrecise {
		also = fmt.Sprintf(", after %d training pictures for the statistics",
			min(e.Study.BNPictures, e.Data.Train)/batch*batch)
	}
	row("evaluate", "%s, %s each%s", report.Count(e.evaluations, "time"),
		report.Count(e.Data.Validation+e.Data.Test, "picture"), also)
	on := "one on each core"
	if e.GPUs > 0 {
		on = "sharing " + report.Count(e.GPUs, "GPU")
	}
	row("time", "%s%s, evaluation included, with %d at once, %s; by a few steps of %d of its networks, "+
		"measured in %.0f s%s", e.atMost(), Rough(e.forecast.Seconds), min(e.Workers, e.Left), on, len(e.Measured),
		e.took.Seconds(), e.shared())
	what := "epochs, and checkpoints of the trials that train"
	if e.Study.KeepCheckpoints || e.Study.KeepBest {
		what = "epochs, and checkpoints of all trials"
	}
	row("database", "about %s: %s", size(e.databaseBytes()), what)
	return b.String()
}

// FewSteps warns of trainings that end while the running statistics of their
// normalisations still depend on their first values. It is "" otherwise.
func (p Plan) FewSteps() string {
	const noticeable = 0.05 // a smaller part of the first values does not matter
	if p.Study.BNStatistics == search.BNPrecise {
		return ""
	}
	steps := math.MaxInt // of the trainings with the fewest
	for _, point := range p.Study.Axes.Points() {
		at := Plan{Study: p.Study.At(point), Data: p.Data}
		perEpoch, _ := at.Steps()
		steps = min(steps, at.Study.Epochs*perEpoch)
	}
	most := 0.0
	for _, system := range p.Study.SystemList() {
		net, err := system.Network(p.Study.Plan(p.Data.Shape, len(p.Data.Classes)))
		if err != nil {
			continue // the training reports it
		}
		most = max(most, math.Pow(graph.RunningFactor(net), float64(steps)))
	}
	if most <= noticeable {
		return ""
	}
	return fmt.Sprintf("a training has only %s, after which %.0f %% of the running mean and variance "+
		"that it is evaluated by are still their first values, 0 and 1: set bn_statistics = \"precise\", "+
		"which does without them, or train for more steps", report.Count(steps, "step"), 100*most)
}
