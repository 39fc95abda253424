package live

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"igcsearch/cmd/igcsearch/progress"
	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
)

// StudyOf describes a stored study, except its figures. The study must have been read with the histories of its
// trials and with its attempts.
func StudyOf(r report.Results) Study {
	s := Study{
		Name: r.Study.Name, Title: search.Printable(r.Study.Title), Dataset: report.DatasetLabel(r.Study.Dataset),
		Updated: r.Updated,
		Trials:  len(r.Trials), Counts: r.Counts(), Saved: r.Saved(), Caption: r.Caption(), Split: r.Study.Split,
		Hours: hours(r), Failures: failures(r, false), Interruptions: failures(r, true),
	}
	if len(r.ISAs) > 1 {
		s.Warnings = append(s.Warnings, r.Mixed())
	}
	for _, head := range r.NameHeader() {
		text, isText := strings.CutPrefix(head, "<")
		s.Head = append(s.Head, Column{Name: text, Text: isText})
	}
	type cell struct {
		system space.System
		at     search.Point
	}
	trials := map[cell][]Trial{}
	for _, t := range r.Trials {
		if t.Status.Finished() {
			s.Done++
		}
		one := Trial{Seed: t.Seed, Status: string(t.Status), Epoch: t.Epoch, Epochs: t.Epochs}
		if _, ok := r.Accuracy(t.Trial); ok {
			one.Accuracy = report.Percent(t.Last.Correct(r.Study.Split))
		}
		trials[cell{t.System, t.At}] = append(trials[cell{t.System, t.At}], one)
	}
	for _, n := range r.Networks() {
		s.Networks = append(s.Networks, Network{
			Which: r.Name(n), Accuracy: n.Accuracy(), N: n.N(), Trials: trials[cell{n.System, n.At}],
		})
	}
	if p := r.Posterior(); p != nil {
		s.Model = report.PosteriorModel(p)
		for i, best := range p.Best {
			s.Networks[i].Best = report.WholePercent(best)
		}
	}
	s.Status = status(r, s.Done)
	s.addRunning(r)
	return s
}

// status describes the whole study. done is how many of its trials have their result.
func status(r report.Results, done int) string {
	begun := false
	for _, t := range r.Trials {
		if t.Status == search.Running {
			return "running"
		}
		begun = begun || t.Epoch > 0 || t.Status.Finished() // a diverged trial may have no epoch
	}
	if done == len(r.Trials) {
		return "done"
	}
	if begun && r.Ended() { // its strategy does not want the other trials
		return "done"
	}
	if len(r.Attempts) > 0 {
		return "stopped"
	}
	return "waiting"
}

// addRunning describes the trials that run, and how long the rest takes. It leaves out the time and the speed if the
// workers are silent: only their epochs tell whether a process of another machine is still there.
func (s *Study) addRunning(r report.Results) {
	speed, slowest := 0., 0. // of all that run together; seconds of an epoch
	for _, t := range r.Trials {
		if t.Status == search.Running {
			s.Running = append(s.Running, running(r, t.Trial))
			speed += picturesPerSecond(t.Last)
			slowest = max(slowest, t.Last.TrainSeconds+t.Last.EvalSeconds)
		}
	}
	ahead := r.Forecast()
	if s.Share = ahead.Share; s.Status == "done" {
		s.Share = 1
	}
	if slowest > 0 && time.Since(r.Updated).Seconds() > 60+3*slowest {
		s.Warnings = append(s.Warnings, fmt.Sprintf(
			"nothing was heard of its workers since %s, and an epoch takes them %s: are they still there?",
			r.Updated.Local().Format("2 Jan 15:04 MST"), progress.Span(slowest)))
		return
	}
	if speed > 0 {
		s.Speed = fmt.Sprintf("%.0f", speed)
	}
	if len(s.Running) > 0 {
		s.Left = progress.Remaining(ahead, r.Study)
		if ahead.Known {
			s.Ready = r.Updated.Add(time.Duration(min(ahead.Seconds, 1e9) * 1e9)).Truncate(time.Minute)
		}
	}
}

// running describes a trial that runs.
func running(r report.Results, t search.Trial) Running {
	var a store.TrialAttempt // the last one at the trial
	for _, one := range r.Attempts {
		if one.Key == t.Key {
			a = one
		}
	}
	row := Running{
		Network: t.Key.Label(), Seed: t.Seed, Epoch: t.Epoch, Epochs: t.Epochs,
		Worker: worker(a), Device: cmp.Or(a.Device, "cpu"), Since: a.Started,
	}
	if t.Epoch > 0 {
		row.TrainLoss = fmt.Sprintf("%.4f", t.Last.TrainLoss)
		row.TrainAccuracy = report.Percent(t.Last.TrainCorrect, t.Last.TrainTotal)
		if loss := t.Last.Loss(r.Study.Split); loss != 0 {
			row.Loss = fmt.Sprintf("%.4f", loss)
		}
		row.Accuracy = report.Percent(t.Last.Correct(r.Study.Split))
	}
	if v := picturesPerSecond(t.Last); v > 0 {
		row.Speed = fmt.Sprintf("%.0f", v)
	}
	return row
}

// worker names the process of an attempt.
func worker(a store.TrialAttempt) string {
	host := search.PrintableLine(cmp.Or(a.Host, "unknown host"))
	if a.Job != "" {
		return fmt.Sprintf("%s, %s", host, search.PrintableLine(a.Job))
	}
	return fmt.Sprintf("%s, %d", host, a.PID)
}

// picturesPerSecond returns the speed of training in an epoch, 0 if it is not known.
func picturesPerSecond(e search.Epoch) float64 {
	if e.TrainSeconds <= 0 {
		return 0
	}
	return float64(e.TrainTotal) / e.TrainSeconds
}

// hours returns how long the study trained, by the seconds of its epochs, and how long it held GPUs. The time of
// trials that share a GPU counts once. An attempt that has not ended counts until the study last changed.
func hours(r report.Results) []Hours {
	seconds := 0.
	for _, t := range r.Trials {
		for _, e := range t.History {
			seconds += e.TrainSeconds + e.EvalSeconds
		}
	}
	list := []Hours{{Amount: hoursText(seconds), Of: "training, beside other work"}}
	type holder struct {
		device, host string
		pid          int
	}
	ends := map[holder]time.Time{} // the end of the time that is counted so far
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
		list = append(list, Hours{Amount: hoursText(held[d]), Of: "GPU, " + d})
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

// failures lists the attempts that failed or diverged, the last first; or else those whose processes were killed or
// stood still, or which were put back.
func failures(r report.Results, interrupted bool) []Failure {
	const shown, lines = 20, 6
	ended := []search.Ending{search.EndedFailed, search.EndedDiverged}
	if interrupted {
		ended = []search.Ending{search.EndedLost}
	}
	status := map[search.Key]search.Status{}
	for _, t := range r.Trials {
		status[t.Key] = t.Status
	}
	var list []Failure
	for _, a := range slices.Backward(r.Attempts) {
		putBack := interrupted && a.Ending == search.EndedInterrupted && a.Message != ""
		if !putBack && !slices.Contains(ended, a.Ending) {
			continue
		}
		text := strings.Split(strings.TrimSpace(a.Message), "\n")
		if a.Ending == search.EndedLost && a.Message == "" {
			text = []string{"its process was killed; the trial goes on from its last epoch"}
		}
		f := Failure{
			Network: a.Key.Label(), Seed: a.Seed, Outcome: string(a.Ending), At: a.Ended, Worker: worker(a),
			Lines: search.Printable(strings.Join(text[max(0, len(text)-lines):], "\n")),
			Now:   string(status[a.Key]),
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
