package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"igcsearch/cmd/igcsearch/live"
	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/plots"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// watched is a database as the live page reads it. It is opened for each look,
// for reading only, as status does: it may not be there yet, or be replaced.
type watched struct {
	path string
	// resting are the studies of the last Read that no process works on, by name.
	resting map[string]rested
}

// rested is a study as the page showed it at a revision.
type rested struct {
	revision string
	live.Study
}

var _ live.Source = (*watched)(nil)

func (w *watched) look(ctx context.Context, f func(*store.DB) error) error {
	db, err := store.OpenReadOnly(ctx, w.path)
	if err != nil {
		return advised(err)
	}
	defer db.Close()
	return advised(f(db))
}

func (w *watched) Mark(ctx context.Context) (mark string, err error) {
	err = w.look(ctx, func(db *store.DB) (err error) {
		mark, err = db.Mark(ctx)
		return err
	})
	return mark, err
}

func (w *watched) Snapshot(ctx context.Context, path string) error {
	return w.look(ctx, func(db *store.DB) error { return db.Snapshot(ctx, path) })
}

// Export writes what the command export writes.
func (w *watched) Export(ctx context.Context, out io.Writer, study string, epochs bool) error {
	return w.look(ctx, func(db *store.DB) error {
		found, err := db.Read(ctx, study, partsFor(epochs)...) // by its name alone: it comes from outside
		if err != nil {
			return err
		}
		return report.From(found).Export(out, report.ExportOptions{Format: "csv", Epochs: epochs})
	})
}

func (w *watched) Read(ctx context.Context) (live.State, error) {
	state, resting := live.State{Database: w.path}, map[string]rested{}
	err := w.look(ctx, func(db *store.DB) error {
		infos, err := db.Studies(ctx)
		if err != nil {
			return err
		}
		// What changed last is what people look for.
		slices.SortStableFunc(infos, func(a, b store.StudyInfo) int { return b.Updated.Compare(a.Updated) })
		for _, info := range infos {
			one := w.resting[info.Name]
			if one.revision != info.Revision {
				found, err := db.Read(ctx, info.Name, store.Histories, store.Attempts)
				if err != nil {
					return err
				}
				one.revision = found.Revision // not that of info: the study may have changed since
				if one.Study, err = watchedStudy(report.From(found)); err != nil {
					return err
				}
			}
			if one.Status != "running" {
				resting[one.Name] = one
			}
			state.Studies = append(state.Studies, one.Study)
		}
		return nil
	})
	w.resting = resting
	if errors.Is(err, fs.ErrNotExist) {
		state.Missing = fmt.Sprintf("There is no database %s: igcsearch run STUDY --db %s creates it.", w.path, quote(w.path))
		err = nil
	}
	return state, err
}

// watchedStudy is a study with all that the page shows of it.
func watchedStudy(r report.Results) (one live.Study, err error) {
	s, updated := r.Study, r.Updated
	one = live.Study{
		Name: s.Name, Title: s.Title, Dataset: report.DatasetLabel(s.Dataset), Updated: updated, Trials: len(r.Trials), Counts: r.Counts(),
		Caption: r.Caption(), Split: s.Split, Hours: hours(r),
	}
	if len(r.ISAs) > 1 {
		one.Warnings = append(one.Warnings, r.Mixed())
	}
	for _, head := range r.NameHeader() {
		text, isText := strings.CutPrefix(head, "<")
		one.Head = append(one.Head, live.Column{Name: text, Text: isText})
	}
	n := map[search.Status]int{}
	cells := map[space.System][]live.Trial{}
	speed, slowest := 0., 0. // of what runs; seconds of an epoch
	for _, t := range r.Trials {
		n[t.Status]++
		cell := live.Trial{Seed: t.Seed, Status: string(t.Status), Epoch: t.Epoch, Epochs: t.Epochs}
		if _, ok := r.Accuracy(t.Trial); ok {
			cell.Accuracy = percent(t.Last.Correct(s.Split))
		}
		cells[t.System] = append(cells[t.System], cell)
		if t.Status == search.Running {
			one.Running = append(one.Running, running(r, t.Trial))
			speed += picturesPerSecond(t.Last)
			slowest = max(slowest, t.Last.TrainSeconds+t.Last.EvalSeconds)
		}
	}
	for _, p := range r.Networks() {
		one.Networks = append(one.Networks, live.Network{
			Which: r.Name(p.System, p.Params), Accuracy: p.Accuracy(), N: p.N(), Trials: cells[p.System],
		})
	}
	one.Done = n[search.Done] + n[search.Diverged]
	switch {
	case n[search.Running] > 0:
		one.Status = "running"
	case one.Done == len(r.Trials) || answered(r):
		one.Status = "done"
	case len(r.Attempts) > 0:
		one.Status = "stopped"
	default:
		one.Status = "waiting"
	}
	ahead := forecast(r)
	if one.Share = ahead.Share; one.Status == "done" {
		one.Share, ahead.Known = 1, false
	}
	// Whether a process of another machine is still there, only its epochs tell.
	silent := slowest > 0 && time.Since(updated).Seconds() > 60+3*slowest
	if silent {
		one.Warnings = append(one.Warnings, fmt.Sprintf("nothing was heard of its workers since %s, and an epoch takes them %s: are they still there?",
			updated.Local().Format("2 Jan 15:04 MST"), progress.Span(slowest)))
	}
	if speed > 0 && !silent {
		one.Speed = fmt.Sprintf("%.0f", speed)
	}
	if n[search.Running] > 0 && !silent {
		one.Left = progress.Remaining(ahead, s)
	}
	if ahead.Known && n[search.Running] > 0 && !silent {
		one.Ready = updated.Add(time.Duration(min(ahead.Seconds, 1e9) * 1e9)).Truncate(time.Minute)
	}
	one.Failures = failures(r)
	one.Figures, err = watchedFigures(r)
	return one, err
}

// answered reports whether the study's strategy wants no more of it.
func answered(r report.Results) bool {
	d := r.Decide()
	begun := slices.ContainsFunc(r.Trials, func(t search.TrialState) bool { return t.Epoch > 0 })
	return begun && len(d.Next) == 0 && d.Reason != ""
}

// lastAttempt is the last attempt at a trial.
func lastAttempt(r report.Results, t search.Trial) (last store.TrialAttempt) {
	for _, a := range r.Attempts {
		if a.System == t.System && a.Seed == t.Seed {
			last = a
		}
	}
	return last
}

func running(r report.Results, t search.Trial) live.Running {
	a := lastAttempt(r, t)
	row := live.Running{
		Network: t.System.Label(), Seed: t.Seed, Epoch: t.Epoch, Epochs: t.Epochs,
		Worker: worker(a), Device: cmp.Or(a.Device, "cpu"), Since: a.Started,
	}
	if t.Epoch > 0 {
		row.TrainLoss = fmt.Sprintf("%.4f", t.Last.TrainLoss)
		row.TrainAccuracy = percent(t.Last.TrainCorrect, t.Last.TrainTotal)
		if loss := t.Last.Loss(r.Study.Split); loss != 0 {
			row.Loss = fmt.Sprintf("%.4f", loss)
		}
		row.Accuracy = percent(t.Last.Correct(r.Study.Split))
	}
	if v := picturesPerSecond(t.Last); v > 0 {
		row.Speed = fmt.Sprintf("%.0f", v)
	}
	return row
}

func worker(a store.TrialAttempt) string {
	if a.Job != "" {
		return fmt.Sprintf("%s, %s", cmp.Or(a.Host, "unknown host"), a.Job)
	}
	return fmt.Sprintf("%s, %d", cmp.Or(a.Host, "unknown host"), a.PID)
}

// picturesPerSecond is the speed of training in an epoch, 0 if it is unknown.
func picturesPerSecond(e search.Epoch) float64 {
	if e.TrainSeconds <= 0 {
		return 0
	}
	return float64(e.TrainTotal) / e.TrainSeconds
}

// forecast is that of the epochs so far, by as many at once as run now.
func forecast(r report.Results) search.Forecast {
	running := 0
	for _, t := range r.Trials {
		if t.Status == search.Running {
			running++
		}
	}
	return search.Predict(search.Recorded(r.Trials), running)
}

// hours is what was trained, by the seconds of the epochs, and how long GPUs
// were held for it: trials that share one do not count twice. An attempt that
// has not ended counts until the study was last heard of.
func hours(r report.Results) []live.Hours {
	seconds := 0.
	for _, t := range r.Trials {
		for _, e := range t.History {
			seconds += e.TrainSeconds + e.EvalSeconds
		}
	}
	list := []live.Hours{{Amount: hoursText(seconds), Of: "training"}}
	type holder struct {
		device, host string
		pid          int
	}
	ends := map[holder]time.Time{} // until when its time is counted
	held := map[string]float64{}
	var devices []string
	attempts := slices.Clone(r.Attempts)
	slices.SortStableFunc(attempts, func(a, b store.TrialAttempt) int { return a.Started.Compare(b.Started) })
	for _, a := range attempts {
		if a.Device == "cpu" || a.Device == "" {
			continue
		}
		h := holder{a.Device, a.Host, a.PID}
		from, to := a.Started, cmp.Or(a.Ended, r.Updated)
		if before := ends[h]; before.After(from) {
			from = before
		}
		if to.After(from) {
			held[a.Device] += to.Sub(from).Seconds()
			ends[h] = to
		}
		if !slices.Contains(devices, a.Device) {
			devices = append(devices, a.Device)
		}
	}
	for _, d := range devices {
		list = append(list, live.Hours{Amount: hoursText(held[d]), Of: "GPU, " + d})
	}
	return list
}

func hoursText(seconds float64) string {
	switch h := seconds / 3600; {
	case h >= 100:
		return strconv.FormatFloat(math.Round(h), 'f', 0, 64)
	case h >= 1:
		return fmt.Sprintf("%.1f", h)
	default:
		return fmt.Sprintf("%.3f", h)
	}
}

// failures are the attempts that did not end well, the last first.
func failures(r report.Results) []live.Failure {
	const shown, lines = 20, 6
	status := map[string]search.Status{}
	key := func(s space.System, seed int) string { return fmt.Sprint(s, " ", seed) }
	for _, t := range r.Trials {
		status[key(t.System, t.Seed)] = t.Status
	}
	var list []live.Failure
	for _, a := range slices.Backward(r.Attempts) {
		putBack := a.Ending == search.EndedInterrupted && a.Message != ""
		if !putBack && !slices.Contains([]search.Ending{search.EndedFailed, search.EndedDiverged, search.EndedLost}, a.Ending) {
			continue
		}
		text := strings.Split(strings.TrimSpace(a.Message), "\n")
		if a.Ending == search.EndedLost && a.Message == "" {
			text = []string{"its process was killed; the trial goes on from its last epoch"}
		}
		f := live.Failure{
			Network: a.System.Label(), Seed: a.Seed, Outcome: string(a.Ending), At: a.Ended, Worker: worker(a),
			Lines: strings.Join(text[max(0, len(text)-lines):], "\n"), Now: string(status[key(a.System, a.Seed)]),
		}
		if putBack {
			f.Outcome = "put back"
		}
		if list = append(list, f); len(list) == shown {
			break
		}
	}
	return list
}

// watchedFigures are the figures of a study that have something to show:
// accuracy against M as plot draws it, and learning curves also of trials that
// run.
func watchedFigures(r report.Results) ([]live.Figure, error) {
	options, err := figureOptions([]report.Results{r})
	if err != nil {
		return nil, err
	}
	var list []live.Figure
	add := func(name, title, note string, f plots.Figure) {
		var numbers bytes.Buffer
		if plots.Encode(&numbers, "csv", f, options) != nil {
			return // no number yet
		}
		list = append(list, live.Figure{
			Name: name, Title: title, Note: note, Numbers: numbers.String(),
			Draw: func(w io.Writer, format string, outlines bool) error {
				o := options
				o.Outlines = outlines
				return plots.Encode(w, format, f, o)
			},
		})
	}
	if r.Study.OfPairs() {
		note := fmt.Sprintf("%d of %s done", r.Done(), count(len(r.Trials), "trial"))
		add("accuracy", "Accuracy against M", note, plots.AccuracyVsM{Series: series([]report.Results{r})})
	}
	note := ""
	if r.Done() < len(r.Trials) {
		note = "also of trials that are not done"
	}
	curves := curvesOf(r, search.Done, search.Running, report.Interrupted, search.Pending)
	add("curves", "Learning curves", note, plots.LearningCurves{Curves: curves})
	return list, nil
}
