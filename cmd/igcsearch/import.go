package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store"
	"igcsearch/trainer"
)

type importOptions struct {
	file, study, db, data string
	set                   []string
}

func newImportCommand() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Store results that export wrote as csv or json",
		Long: `import stores the results that igcsearch export wrote, of trials that the database
has none of; those that it has must be the same. What is imported is marked as
such. json has the settings of its study and wants no pictures; csv has none, so
--study says which it is of, and the pictures of that are read. A csv without the
losses of evaluations is from an older igcsearch, which decayed "weights" only: so
does the study then, unless --set weight_decay_on says otherwise. A trial that was not finished starts anew when it is trained, for an export
has no checkpoints.`,
		Example: `  igcsearch export quickstart --format json --epochs --times > results.json
  igcsearch import results.json --db copy.db`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			return runImport(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	addDB(cmd, &o.db)
	addData(cmd, &o.data)
	cmd.Flags().StringVar(&o.study, "study", "", "the `STUDY` of a csv: a shipped one or a file")
	cmd.Flags().StringArrayVar(&o.set, "set", nil, "override one setting of that study, as `key=value`; may be repeated")
	return cmd
}

func runImport(ctx context.Context, o importOptions, stdout, stderr io.Writer) error {
	text, err := os.ReadFile(o.file)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	var study search.Study
	var rows []importRow
	isJSON := len(bytes.TrimSpace(text)) > 0 && bytes.TrimSpace(text)[0] == '{'
	switch {
	case isJSON && o.study != "":
		return usageError{errors.New("--study is for csv: json has the settings of its study")}
	case isJSON:
		study, rows, err = readJSON(text)
	case o.study == "":
		return usageError{errors.New("--study is missing: of which study is the csv? a shipped one or a file")}
	default:
		if study, err = loadStudy(o.study, o.set); err != nil {
			return err
		}
		var older bool
		if rows, older, err = readCSV(text); older && !slices.ContainsFunc(o.set, func(s string) bool { return strings.HasPrefix(s, "weight_decay_on=") }) {
			study.WeightDecayOn = ""
			warning := `an older igcsearch exported this: it is stored as trained with weight_decay_on = "weights"`
			if study.Dataset == "synthetic" {
				warning += ", and its synthetic pictures were others than those that are stored with it: do not train on"
			}
			printWarnings(stderr, study.Name, []string{warning})
		}
	}
	if err != nil {
		return fmt.Errorf("import %s: %w: want what igcsearch export wrote", o.file, err)
	}
	in, classes := study.Shape()
	if !isJSON || classes == 0 {
		data, err := trainer.New(trainer.Options{DataDir: o.data}).Load(ctx, study)
		if err != nil {
			return err
		}
		if in, classes = data.Shape, len(data.Classes); isJSON && data.Sum != study.DataSum {
			return fmt.Errorf("import %s: its study is of other pictures than those in %s", o.file, o.data)
		}
		if !isJSON {
			identify(&study, data, stderr)
		}
	}
	trials := study.Trials(in, classes)
	results, err := group(study, trials, rows)
	if err != nil {
		return fmt.Errorf("import %s: %w", o.file, err)
	}
	db, err := openWriter(ctx, o.db)
	if err != nil {
		return err
	}
	defer db.Close()
	n, err := importRecords(ctx, db, study, trials, results, o.file)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%s: %s imported into %s, of %d in the file\n", study.Name, count(n, "trial"), o.db, len(results))
	return err
}

// importRecords stores the results of a file and returns how many trials have other results now.
func importRecords(ctx context.Context, db *store.DB, study search.Study, trials []search.Trial, results []search.TrialState, file string) (n int, err error) {
	byKey := map[search.Key]search.TrialState{}
	for _, r := range results {
		byKey[r.Key] = r
	}
	list, err := db.Bring(ctx, store.Source{Study: study, Trials: trials, Load: func(i int, _ bool) (search.Record, error) {
		r, ok := byKey[trials[i].Key]
		if !ok {
			return search.Record{TrialState: search.TrialState{Trial: trials[i]}}, nil
		}
		return imported(r, file), nil
	}})
	for _, b := range list {
		if b.Taken {
			n++
		}
	}
	return n, err
}

// imported is an exported trial as a record: all of it is of one attempt, whose message says where it comes from. A
// trial that is not finished was interrupted.
func imported(r search.TrialState, file string) search.Record {
	record := search.Record{TrialState: r, By: make([]int, len(r.History))}
	if len(r.History) == 0 && r.Status == search.Pending {
		return record
	}
	now := time.Now()
	a := search.PastAttempt{Attempt: search.Attempt{Started: now}, Ended: now, Failure: r.Failure, Ending: search.Ending(r.Status)}
	if r.Status == search.Pending {
		a.Ending, a.Failure = search.EndedInterrupted, search.FailedInterrupted
	}
	a.Message = strings.TrimSpace("imported from " + file + "\n" + r.Error)
	record.Attempts = []search.PastAttempt{a}
	return record
}

// importRow is a trial at one of its epochs, as export wrote it.
type importRow struct {
	system string // "" for L and M
	depth  int    // 0: as the name says
	pair   space.Pair
	seed   int
	status search.Status
	epochs int
	error  string
	epoch  search.Epoch // Number 0: none yet
}

// group makes the rows of each trial a trial.
func group(study search.Study, trials []search.Trial, rows []importRow) ([]search.TrialState, error) {
	type key struct {
		name string
		seed int
	}
	var list []search.TrialState
	at := map[key]int{}
	for i, r := range rows {
		var found *search.Trial
		for k := range trials {
			t := &trials[k]
			same := r.system == "" && t.System.Pair() == r.pair && study.OfPairs()
			if r.system != "" {
				plain := t.System
				plain.Depth = 0
				plan := study.Plan(space.Shape{}, 0)
				depth := t.System.Depth
				if depth == 0 {
					depth = plan.Depth
				}
				if depth == 0 {
					depth = plan.Layout.DefaultDepth(t.System.Ident)
				}
				same = r.system == t.System.String() && r.depth == 0 || r.system == plain.String() && r.depth == depth
			}
			if same && t.Seed == r.seed {
				found = t
			}
		}
		if found == nil {
			return nil, fmt.Errorf("row %d: %s%v seed %d is no trial of study %s", i+1, r.system, r.pair, r.seed, study.Name)
		}
		k := key{found.System.String(), found.Seed}
		j, ok := at[k]
		if !ok {
			j = len(list)
			at[k] = j
			t := *found
			t.Status, t.Error = r.status, r.error
			switch t.Status {
			case search.Done, search.Pending:
			case search.Diverged:
				t.Failure = search.FailedDiverged
			case search.Failed:
				t.Failure = search.FailedCrashed
			case search.Running, interrupted:
				t.Status = search.Pending
			default:
				return nil, fmt.Errorf("row %d: status %q", i+1, r.status)
			}
			list = append(list, search.TrialState{Trial: t})
		}
		s := &list[j]
		switch n := len(s.History); {
		case r.epochs != s.Epochs:
			return nil, fmt.Errorf("row %d: %d epochs, the study has %d", i+1, r.epochs, s.Epochs)
		case r.epoch.Number < 0 || r.epoch.Number > s.Epochs || n > 0 && r.epoch.Number <= s.History[n-1].Number:
			return nil, fmt.Errorf("row %d: epoch %d is out of order", i+1, r.epoch.Number)
		case r.epoch.Number > 0:
			s.History = append(s.History, r.epoch)
		}
	}
	return list, nil
}

// readCSV returns also whether an older igcsearch wrote it, which did not know the
// losses of evaluations.
func readCSV(text []byte) (rows []importRow, older bool, err error) {
	all, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		return nil, false, err
	}
	if len(all) == 0 {
		return nil, false, errors.New("it is empty")
	}
	columns := map[string]int{}
	for i, name := range all[0] {
		columns[name] = i
	}
	need := []string{"seed", "status", "epoch", "epochs", "learning_rate", "train_loss", "train_correct", "train_total",
		"validation_correct", "validation_total", "test_correct", "test_total", "error"}
	_, ofSystems := columns["network"]
	if ofSystems {
		need = append(need, "depth")
	} else {
		need = append(need, "L", "M")
	}
	for _, name := range need {
		if _, ok := columns[name]; !ok {
			return nil, false, fmt.Errorf("it has no column %s", name)
		}
	}
	_, losses := columns["test_loss"]
	for n, fields := range all[1:] {
		var bad error
		field := func(name string) string { return fields[columns[name]] }
		number := func(name string) int {
			v, err := strconv.Atoi(field(name))
			if err != nil {
				bad = fmt.Errorf("row %d: %s %q", n+1, name, field(name))
			}
			return v
		}
		float := func(name string) float64 {
			if _, ok := columns[name]; !ok || field(name) == "" {
				return 0
			}
			v, err := strconv.ParseFloat(field(name), 64)
			if err != nil {
				bad = fmt.Errorf("row %d: %s %q", n+1, name, field(name))
			}
			return v
		}
		r := importRow{seed: number("seed"), status: search.Status(field("status")), epochs: number("epochs"), error: field("error"), epoch: search.Epoch{
			Number: number("epoch"), LearningRate: float("learning_rate"), TrainLoss: float("train_loss"),
			TrainCorrect: number("train_correct"), TrainTotal: number("train_total"),
			ValidationCorrect: number("validation_correct"), ValidationTotal: number("validation_total"),
			TestCorrect: number("test_correct"), TestTotal: number("test_total"),
			ValidationLoss: float("validation_loss"), TestLoss: float("test_loss"), // older exports have none
			TrainSeconds: float("train_seconds"), EvalSeconds: float("eval_seconds"),
		}}
		if ofSystems {
			r.system, r.depth = field("network"), number("depth")
		} else {
			r.pair = space.Pair{L: number("L"), M: number("M")}
		}
		if bad != nil {
			return nil, false, bad
		}
		rows = append(rows, r)
	}
	return rows, !losses, nil
}

func readJSON(text []byte) (search.Study, []importRow, error) {
	var file struct {
		Title       string          `json:"title"`
		Fingerprint string          `json:"fingerprint"`
		Settings    json.RawMessage `json:"settings"`
		Rows        []struct {
			trialJSON
			LearningRate float64  `json:"learning_rate"`
			TrainSeconds *float64 `json:"train_seconds"`
			EvalSeconds  *float64 `json:"eval_seconds"`
		} `json:"trials"`
	}
	var s search.Study
	if err := json.Unmarshal(text, &file); err != nil {
		return s, nil, err
	}
	if err := json.Unmarshal(file.Settings, &s); err != nil {
		return s, nil, fmt.Errorf("settings: %w", err)
	}
	sum, unreadable := s.DataSum, s.Unreadable
	s, err := s.Normalize()
	if err != nil {
		return s, nil, fmt.Errorf("settings: %w", err)
	}
	s.Title, s.DataSum, s.Unreadable = file.Title, sum, unreadable
	if s.Fingerprint() != file.Fingerprint {
		return s, nil, errors.New("its fingerprint is not that of its settings")
	}
	var rows []importRow
	for _, x := range file.Rows {
		r := importRow{system: x.System, pair: space.Pair{L: x.L, M: x.M}, seed: x.Seed, status: x.Status, epochs: x.Epochs, error: x.Error, epoch: search.Epoch{
			Number: x.Epoch, LearningRate: x.LearningRate, TrainLoss: math.NaN(), TrainCorrect: x.TrainCorrect, TrainTotal: x.TrainTotal,
			ValidationCorrect: x.ValidationCorrect, ValidationTotal: x.ValidationTotal, TestCorrect: x.TestCorrect, TestTotal: x.TestTotal,
			ValidationLoss: float64(x.ValidationLoss), TestLoss: float64(x.TestLoss),
		}}
		if x.TrainLoss != nil {
			r.epoch.TrainLoss = *x.TrainLoss
		}
		if x.TrainSeconds != nil && x.EvalSeconds != nil {
			r.epoch.TrainSeconds, r.epoch.EvalSeconds = *x.TrainSeconds, *x.EvalSeconds
		}
		rows = append(rows, r)
	}
	return s, rows, nil
}
