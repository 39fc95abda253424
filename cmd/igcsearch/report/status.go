package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"igcsearch/search"
	"igcsearch/store"
	"igcsearch/store/table"
)

// Status is where the trials of a study stand.
type Status struct {
	Results
	// Workers are those of other machines that have a trial of the study, or none at all.
	Workers []store.WorkerTrial
	// Left says how long the rest takes; empty if no trial runs.
	Left string
}

// Studies are the studies of a database.
type Studies struct {
	Database string
	List     []store.StudyInfo
}

// Print writes a row for each study, in one of the formats table and json.
func (s Studies) Print(stdout io.Writer, format string) error {
	if format == "json" {
		type study struct {
			Study   string                `json:"study"`
			Title   string                `json:"title"`
			Updated time.Time             `json:"updated"` // the last change to the study or its trials
			Trials  map[search.Status]int `json:"trials"`  // numbers by status
		}
		list := []study{}
		for _, i := range s.List {
			list = append(list, study{i.Name, i.Title, i.Updated, i.Counts})
		}
		return JSON(stdout, list)
	}
	t := NewTable("<study in "+s.Database, "done", "diverged", "failed", "left", "<last change", "<what")
	for _, i := range s.List {
		left := i.Counts[search.Pending] + i.Counts[search.Running]
		number := func(s search.Status) string { return fmt.Sprint(i.Counts[s]) }
		t.Add(i.Name, number(search.Done), number(search.Diverged), number(search.Failed), fmt.Sprint(left),
			i.Updated.Local().Format(time.DateTime), i.Title)
	}
	_, err := fmt.Fprint(stdout, t)
	return err
}

// workerJSON is a worker on another machine, once for each trial that it has.
type workerJSON struct {
	Job    string `json:"job"` // of the scheduler, "" outside one
	Node   string `json:"node"`
	PID    int    `json:"pid"`
	Device string `json:"device"` // "" between two trials
	Trial  string `json:"trial"`  // name of the network, "" between two trials
	Seed   int    `json:"seed"`
	// Silent says that nothing is heard of it, and why its scheduler cannot be asked; absent otherwise.
	Silent string `json:"silent,omitempty"`
}

// Print writes the status in one of the formats table and json.
func (s Status) Print(stdout io.Writer, format string) error {
	workers := s.workers()
	if format == "json" {
		return JSON(stdout, struct {
			Study   string `json:"study"`
			Title   string `json:"title"`
			Dataset string `json:"dataset"`
			// Precision of the trainings; absent if it is f32.
			Precision string        `json:"precision,omitempty"`
			Curve     string        `json:"curve"` // the split whose accuracy is shown
			Trials    table.Objects `json:"trials"`
			// Workers on other machines; absent if there are none.
			Workers []workerJSON `json:"workers,omitempty"`
		}{s.Study.Name, s.Study.Title, s.Study.Dataset, s.Study.Precision, s.Study.Split,
			table.Objects{Rows: table.LastRows(s.Study, s.Trials)}, workers})
	}
	notes := ""
	if s.Study.Strategy != "" {
		notes = fmt.Sprintf("strategy %s: %s; %s\n", s.Study.Strategy, s.wanted(), s.Saved())
	}
	counts := s.Counts()
	if s.Left != "" {
		counts += "; " + s.Left
	}
	if again := s.TakenUp(); again != "" {
		counts += "\n" + again
	}
	if s.Dropped > 0 {
		notes += fmt.Sprintf("checkpoints removed to keep checkpoint_quota, %s: those of %s\n",
			humanize.IBytes(uint64(s.Study.CheckpointQuota)), Count(s.Dropped, "finished trial"))
	}
	if n := s.Outside; n > 0 {
		notes += fmt.Sprintf("left out by the settings of the study, but kept: %s\n", Count(n, "trial"))
	}
	on := DatasetLabel(s.Study.Dataset)
	if s.Study.Precision != "" {
		on += ", precision " + s.Study.Precision
	}
	_, err := fmt.Fprintf(stdout, "%s on %s: %s: %s\n%s\n%s", s.Study.Name, on,
		Count(len(s.Trials), "trial"),
		counts, notes+s.trained(), s.trialTable())
	if err != nil || len(workers) == 0 {
		return err
	}
	t := NewTable("<job", "<node", "process", "<device", "<trial")
	for _, w := range workers {
		trial := ""
		if w.Trial != "" {
			trial = fmt.Sprintf("%s seed %d", w.Trial, w.Seed)
		}
		t.Add(w.Job, w.Node, strconv.Itoa(w.PID), w.Device, trial)
	}
	_, err = fmt.Fprintf(stdout, "\n%s%s", t, silent(workers))
	return err
}

// silent has a line for each worker of which nothing is heard and whose scheduler cannot be asked.
func silent(workers []workerJSON) string {
	type process struct {
		job, node, why string
		pid            int
	}
	trials := map[process][]string{}
	var order []process
	for _, w := range workers {
		p := process{w.Job, w.Node, w.Silent, w.PID}
		if w.Silent == "" || w.Trial == "" {
			continue
		}
		if trials[p] == nil {
			order = append(order, p)
		}
		trials[p] = append(trials[p], fmt.Sprintf("%s seed %d", w.Trial, w.Seed))
	}
	text := ""
	for _, p := range order {
		text += "\n" + search.Waiting(p.job, p.node, p.why, trials[p], search.Lease) + "\n"
	}
	return text
}

// trained says how long the trainings took so far. It is no property of the networks: other work ran beside them.
func (s Status) trained() string {
	seconds := 0.
	for _, t := range s.Trials {
		for _, e := range t.History {
			seconds += e.TrainSeconds + e.EvalSeconds
		}
	}
	if seconds < 0.5 {
		return ""
	}
	on := strings.Join(slices.DeleteFunc(slices.Clone(s.Models), func(m string) bool { return m == "" }), ", ")
	if on != "" {
		on = " on " + on
	}
	return fmt.Sprintf("%.0f seconds of these trainings%s, beside other work\n", seconds, on)
}

func (s Status) workers() (list []workerJSON) {
	for _, w := range s.Workers {
		if !w.Remote || w.Study != "" && w.Study != s.Study.Name {
			continue
		}
		row := workerJSON{Job: w.Job, Node: w.Host, PID: w.PID, Device: w.Device, Seed: w.Seed,
			Silent: w.Silent}
		if w.Study != "" {
			row.Trial = w.Key.Label()
		}
		list = append(list, row)
	}
	return list
}

// trialTable has a row for each trial.
func (s Status) trialTable() *Table {
	which := []string{"L", "M"}
	if !s.Study.OfPairs() {
		which = []string{"<network"}
	}
	for _, axis := range s.Study.Axes {
		which = append(which, axis.Key)
	}
	t := NewTable(append(which, "seed", "<status", "epoch", "train loss", "validation (%)", "test (%)", "<error")...)
	for _, trial := range s.Trials {
		name := []string{trial.System.Label()}
		if p := trial.System.Pair(); s.Study.OfPairs() {
			name = []string{strconv.Itoa(p.L), strconv.Itoa(p.M)}
		}
		for _, axis := range s.Study.Axes {
			x, _ := trial.At.Value(axis.Key)
			name = append(name, axisValue(x))
		}
		loss := ""
		if trial.Epoch > 0 {
			loss = fmt.Sprintf("%.4f", trial.Last.TrainLoss)
		}
		e := trial.Last
		t.Add(append(name, strconv.Itoa(trial.Seed), string(trial.Status),
			fmt.Sprintf("%d/%d", trial.Epoch, trial.Epochs), loss,
			Percent(e.ValidationCorrect, e.ValidationTotal), Percent(e.TestCorrect, e.TestTotal), trial.Error)...)
	}
	return t
}

// wanted is what the strategy says, in words.
func (s Status) wanted() string {
	d := s.Decide()
	text := "it waits for what is running"
	switch {
	case d.Reason != "":
		return d.Reason
	case len(d.Next) > 0:
		text = fmt.Sprintf("%s to be trained on now; others may follow, or never", Count(len(d.Next), "trial"))
	}
	if a := s.Agreement(); a.Networks > 0 {
		text += fmt.Sprintf("; so far, %v", a)
	}
	if b, ok := s.Belief(); ok {
		text += fmt.Sprintf("; so far, %v", &b)
	}
	return text
}
