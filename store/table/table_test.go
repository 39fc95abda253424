package table_test

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"igcsearch/search"
	"igcsearch/space"
	"igcsearch/store/table"
)

// studies returns one study of pairs and one of other networks.
func studies(t testing.TB) []search.Study {
	pairs := search.Default()
	pairs.Name, pairs.Dataset, pairs.Seeds, pairs.Epochs = "pairs", "synthetic", search.FirstSeeds(2), 3
	pairs.Pairs = []string{"3x2", "2x3"}
	networks := pairs
	networks.Name, networks.Pairs, networks.Layout = "networks", nil, space.Stages
	networks.Systems, networks.Depths = []string{"RegConv-W4", "IGC-L4M2"}, []int{8, 14}
	list := []search.Study{pairs, networks}
	for i, s := range list {
		var err error
		if list[i], err = s.Normalize(); err != nil {
			t.Fatal(err)
		}
		list[i].DataSum = "0a1b"
	}
	return list
}

// trials are those of a study in all states, with drawn epochs.
func trials(t *rapid.T, s search.Study) []search.TrialState {
	in, classes := s.Shape()
	var list []search.TrialState
	number := rapid.Float64Range(0, 1e300)
	for _, planned := range s.Trials(in, classes) {
		state := search.TrialState{Trial: planned}
		state.Status = rapid.SampledFrom([]search.Status{search.Done, search.Pending, search.Diverged,
			search.Failed}).Draw(t, "status")
		state.Error = rapid.SampledFrom([]string{"", "a, \"b\" <c>"}).Draw(t, "error")
		switch state.Status {
		case search.Diverged:
			state.Failure = search.FailedDiverged
		case search.Failed:
			state.Failure = search.FailedCrashed
		}
		fewest, most := 0, s.Epochs
		switch state.Status {
		case search.Done:
			fewest = most
		case search.Diverged:
			most--
		}
		for n := range rapid.IntRange(fewest, most).Draw(t, "epochs") {
			var e search.Epoch
			for _, v := range e.Values() {
				switch at := v.At.(type) {
				case *int:
					*at = rapid.IntRange(0, 1000).Draw(t, v.Name)
				case *float64:
					*at = number.Draw(t, v.Name)
				}
			}
			e.Number = n + 1
			e.TrainTotal += e.TrainCorrect
			e.ValidationTotal += e.ValidationCorrect
			e.TestTotal += e.TestCorrect
			if e.ValidationTotal == 0 {
				e.ValidationLoss = 0
			}
			e.TrainLoss = rapid.SampledFrom([]float64{e.TrainLoss, math.NaN(), math.Inf(1), math.Inf(-1)}).Draw(t,
				"loss")
			if e.TestLoss = rapid.SampledFrom([]float64{e.TestLoss, math.Inf(1), 0}).Draw(t, "test loss"); e.TestTotal == 0 {
				e.TestLoss = 0
			}
			state.Epoch, state.Last, state.History = e.Number, e, append(state.History, e)
		}
		if len(state.History) > 0 || state.Status != search.Pending {
			list = append(list, state)
		}
	}
	return list
}

// TestRoundTrip: what is written is read back with every bit, in both forms.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range studies(t) {
		rapid.Check(t, func(t *rapid.T) {
			want := trials(t, s)
			rows := table.AllRows(s, want)
			if len(slices.Collect(rows)) == 0 {
				t.Skip("a file without rows is refused")
			}
			in, classes := s.Shape()
			for form, write := range writers {
				var text, again bytes.Buffer
				if err := write(&text, s, rows, true); err != nil {
					t.Fatal(err)
				}
				f, err := table.Read(text.Bytes())
				if err != nil {
					t.Fatalf("%s: %v\n%s", form, err, &text)
				}
				if f.Study != nil && f.Study.Fingerprint() != s.Fingerprint() {
					t.Errorf("%s: another study", form)
				}
				if f.Fingerprint != s.Fingerprint() || f.DataSum != s.DataSum {
					t.Errorf("%s: fingerprint %q and pictures %q, want %q and %q", form, f.Fingerprint, f.DataSum,
						s.Fingerprint(), s.DataSum)
				}
				got, err := table.Match(s, s.Trials(in, classes), f.Rows)
				if err != nil {
					t.Fatalf("%s: %v\n%s", form, err, &text)
				}
				if !same(got, want) {
					t.Fatalf("%s: %+v\nwant %+v\n%s", form, got, want, &text)
				}
				if err := write(&again, s, table.AllRows(s, got), true); err != nil || again.String() != text.String() {
					t.Fatalf("%s: %v\n%s\nwant\n%s", form, err, &again, &text)
				}
			}
		})
	}
}

type writer = func(*bytes.Buffer, search.Study, iter.Seq[table.Row], bool) error

var writers = map[string]writer{
	"csv": func(b *bytes.Buffer, s search.Study, rows iter.Seq[table.Row], times bool) error {
		return table.WriteCSV(b, s, rows, times)
	},
	"json": func(b *bytes.Buffer, s search.Study, rows iter.Seq[table.Row], times bool) error {
		return table.WriteJSON(b, s, rows, times)
	},
}

// same compares trials, and takes any NaN for the same.
func same(a, b []search.TrialState) bool {
	plain := func(list []search.TrialState) []search.TrialState {
		list = slices.Clone(list)
		for i := range list {
			list[i].History = slices.Clone(list[i].History)
			for k := range list[i].History {
				if e := &list[i].History[k]; math.IsNaN(e.TrainLoss) {
					e.TrainLoss = -1
				}
			}
			if math.IsNaN(list[i].Last.TrainLoss) {
				list[i].Last.TrainLoss = -1
			}
		}
		return list
	}
	return reflect.DeepEqual(plain(a), plain(b))
}

// TestColumns: a file whose columns are not those of this igcsearch is refused with a name.
func TestColumns(t *testing.T) {
	t.Parallel()
	csv := "L,M,width,params,seed,status,epoch,epochs,learning_rate,train_loss,train_correct,train_total," +
		"validation_correct,validation_total,test_correct,test_total,validation_loss,test_loss,error\n" +
		"3,2,6,126,0,done,3,3,0.1,2.5,8,64,0,0,5,50,,2.25,\n"
	if _, err := table.Read([]byte(csv)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"params", "parameters", "it has no column params"},
		{"test_loss", "testloss", `its column "testloss" is unknown`},
		{"width", "params", "it has the column params twice"},
		{"error", "error ", "it has no column error"},
		{"L,", "l,", "it has no column L"},
		{"126", "126.5", `row 1: params "126.5" is not a whole number`},
		{"2.25", "a", `row 1: test_loss "a" is not a number`},
		{"2.5", "2,5", "record on line 2: wrong number of fields"},
		{"2.5", `"2,5"`, `row 1: train_loss "2,5" is not a number: write decimals with a point`},
		{"0.1", "NaN", "row 1: learning_rate is NaN: want 0 or more"},
		{"0.1", "+Inf", "row 1: learning_rate is infinite"},
		{",,2.25", ",1,2.25", "row 1: it has a validation_loss without validation pictures"},
		{"\n3,2,6,126,0,done,3,3,0.1,2.5,8,64,0,0,5,50,,2.25,\n", "\n", "it has no trials"},
	} {
		_, err := table.Read([]byte(strings.Replace(csv, c.old, c.new, 1)))
		if err == nil || err.Error() != c.want {
			t.Errorf("%q in place of %q: %v, want %s", c.new, c.old, err, c.want)
		}
	}

	// The accuracies are derived from the counts and never read, but they must not contradict them. A spreadsheet may
	// have rounded them.
	csv = strings.Replace(csv, "test_total,", "test_total,test_accuracy,", 1)
	csv = strings.Replace(csv, "5,50,", "5,48,10.4167,", 1)
	for _, c := range []struct{ new, want string }{
		{"10.4167", ""},
		{"10.42", ""},
		{"10.4", `row 1: test_accuracy is "10.4", but by the counts beside it is 10.4167`},
		{"0.104167", `row 1: test_accuracy is "0.104167", but by the counts beside it is 10.4167`},
		{"NaN", `row 1: test_accuracy is "NaN", but by the counts beside it is 10.4167`},
		{"", `row 1: test_accuracy is "", but by the counts beside it is 10.4167`},
		{"high", `row 1: test_accuracy "high" is not a number`},
		{`"10,42"`, `row 1: test_accuracy "10,42" is not a number: write decimals with a point`},
	} {
		_, err := table.Read([]byte(strings.Replace(csv, "10.4167", c.new, 1)))
		if got := fmt.Sprint(err); got != cmp.Or(c.want, "<nil>") {
			t.Errorf("test_accuracy %s: %v, want %s", c.new, err, c.want)
		}
	}
	none := strings.NewReplacer("validation_total", "validation_total,validation_accuracy", "64,0,0,", "64,0,0,0,").Replace(csv)
	want := "row 1: validation_accuracy is 0, but by the counts beside it there are no pictures"
	if _, err := table.Read([]byte(none)); err == nil || err.Error() != want {
		t.Errorf("an accuracy without pictures: %v, want %s", err, want)
	}

	s := studies(t)[0]
	var b bytes.Buffer
	if err := table.WriteJSON(&b, s, slices.Values([]table.Row{table.NewRow(s,
		search.Trial{Key: search.Key{System: s.SystemList()[0]}, Status: search.Done, Epochs: 3},
		search.Epoch{Number: 3})}), false); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"params"`, `"parameters"`, "row 1: it has no column params"},
		{`"test_loss"`, `"testloss"`, `row 1: its column "testloss" is unknown`},
		{`"seed": 0`, `"seed": "0"`, `row 1: seed "0" is not a whole number`},
		{`"seed": 0`, `"seed": null`, `row 1: seed null is not a whole number`},
		{`"epochs": 3,
      "learning`, `"epochs": 2,
      "learning`, ""},
		{`"momentum": 0.9`, `"momentum": 0.8`, "its fingerprint is not that of its settings"},
		{`"momentum": 0.9`, `"momentum": 9`, "its settings: momentum 9: want [0, 1)"},
		{`"momentum": 0.9`, `"momentum": 0.9, "colour": 1`, `its settings: its key "colour" is unknown`},
		{`"title"`, `"subtitle"`, `its key "subtitle" is unknown`},
		{`"study": "pairs"`, `"study": "pears"`, `its study is "pears", but its settings have the name "pairs"`},
	} {
		text := strings.Replace(b.String(), c.old, c.new, 1)
		if text == b.String() {
			t.Fatalf("%q is not in %s", c.old, text)
		}
		if _, err := table.Read([]byte(text)); (err != nil || c.want != "") && (err == nil || err.Error() != c.want) {
			t.Errorf("%q in place of %q: %v, want %s", c.new, c.old, err, c.want)
		}
	}
}

// TestSpreadsheets: what a spreadsheet makes of a CSV is read if it is certain, else refused with what to do.
func TestSpreadsheets(t *testing.T) {
	t.Parallel()
	s := studies(t)[0]
	s.Precision = search.PrecisionBF16
	var b bytes.Buffer
	row := table.NewRow(s, search.Trial{Key: search.Key{System: s.SystemList()[0]}, Status: search.Done, Epochs: 3},
		search.Epoch{Number: 3, LearningRate: 0.1, TrainLoss: 2.5})
	if err := table.WriteCSV(&b, s, slices.Values([]table.Row{row}), false); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for name, saved := range map[string]string{
		"as it was":           text,
		"a byte order mark":   "\ufeff" + text,
		"lines end as in DOS": strings.ReplaceAll(text, "\n", "\r\n"),
	} {
		f, err := table.Read([]byte(saved))
		if err != nil || len(f.Rows) != 1 || f.Precision != s.Precision || f.Fingerprint != s.Fingerprint() ||
			f.DataSum != s.DataSum {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
	const todo = ": save it as CSV in UTF-8, with commas between the columns and points in the numbers, or take the " +
		"exported file itself"
	var wide []byte // UTF-16
	for _, c := range []byte(text) {
		wide = append(wide, c, 0)
	}
	for saved, want := range map[string]string{
		strings.ReplaceAll(text, ",", ";"):  "semicolons separate its columns" + todo,
		strings.ReplaceAll(text, ",", "\t"): "tabs separate its columns" + todo,
		"\xff\xfe" + string(wide):           "its text is not in UTF-8" + todo,
	} {
		if _, err := table.Read([]byte(saved)); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	others := strings.Replace(strings.SplitAfter(text, "\n")[1], "0a1b", "ffff", 1)
	if _, err := table.Read([]byte(text + others)); err == nil ||
		err.Error() != "row 2: its precision, fingerprint or data_sum is not that of row 1: want the results of one study" {
		t.Errorf("two sets of pictures: %v", err)
	}
}

// TestTrials: rows that contradict one another are refused.
func TestTrials(t *testing.T) {
	t.Parallel()
	row := func(epoch int, change func(*table.Row)) table.Row {
		r := table.Row{Pair: space.Pair{L: 3, M: 2}, Status: search.Done, Epochs: 3, Epoch: search.Epoch{Number: epoch}}
		if change != nil {
			change(&r)
		}
		return r
	}
	pending := func(r *table.Row) { r.Status = search.Pending }
	for _, c := range []struct {
		want string
		rows []table.Row
	}{
		{"", []table.Row{row(1, nil), row(2, nil), row(3, nil), row(3, func(r *table.Row) { r.Seed = 1 })}},
		{"", []table.Row{row(0, pending), row(2, func(r *table.Row) { pending(r); r.Seed = 1 })}},
		{"row 2: L3M2 seed 0: epoch 3 follows epoch 1, want epoch 2", []table.Row{row(1, nil), row(3, nil)}},
		{"row 2: L3M2 seed 0: epoch 1 is there twice, and may be there once", []table.Row{row(1, nil), row(1, nil)}},
		{"row 2: L3M2 seed 0: epoch 1 follows epoch 0, which is the row of a trial without epochs",
			[]table.Row{row(0, pending), row(1, pending)}},
		{"row 1: L3M2 seed 0: epoch 0 has results: want epochs from 1",
			[]table.Row{row(0, func(r *table.Row) { pending(r); r.TestTotal = 10 })}},
		{"L3M2 seed 0: epoch 1 is missing: want all epochs, or only the last", []table.Row{row(2, nil), row(3, nil)}},
		{"L3M2 seed 0 is done, but its last epoch, 3, is missing", []table.Row{row(1, nil), row(2, nil)}},
		{"L3M2 seed 0 is done, but its last epoch, 3, is missing", []table.Row{row(0, nil)}},
		{"L3M2 seed 0 diverged, but has its last epoch, 3",
			[]table.Row{row(3, func(r *table.Row) { r.Status = search.Diverged })}},
		{"row 1: L3M2 seed 0: epoch 4 is not one of 3", []table.Row{row(4, nil)}},
		{`row 1: L3M2 seed 0: status "ready" is unknown`,
			[]table.Row{row(1, func(r *table.Row) { r.Status = "ready" })}},
		{`row 1: L3M2 seed 0: failure "bad" is unknown`, []table.Row{row(1, func(r *table.Row) { r.Failure = "bad" })}},
		{"row 2: L3M2 seed 0: failed of 3 epochs here, done of 3 before",
			[]table.Row{row(1, nil), row(2, func(r *table.Row) { r.Status = search.Failed })}},
	} {
		if _, err := table.Trials(c.rows); (err != nil || c.want != "") && (err == nil || err.Error() != c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	s := studies(t)[0]
	in, classes := s.Shape()
	for want, change := range map[string]func(*table.Row){
		"": func(r *table.Row) {},
		"L5M5 seed 0 is not a trial of study pairs":       func(r *table.Row) { r.Pair = space.Pair{L: 5, M: 5} },
		"L3M2 seed 7 is not a trial of study pairs":       func(r *table.Row) { r.Seed = 7 },
		"L3M2 seed 0 has 4 epochs, but study pairs has 3": func(r *table.Row) { r.Epochs, r.Number = 4, 4 },
		"RegConv-W4 of depth 8 seed 0 is not a trial of study pairs": func(r *table.Row) {
			r.Network, r.Depth = "RegConv-W4", 8
		},
		"L3M2 seed 0 has params 127, but in study pairs it has 126": func(r *table.Row) { r.Params = 127 },
		"L3M2 seed 0 has params 0, but in study pairs it has 126":   func(r *table.Row) { r.Params = 0 },
		"L3M2 seed 0 has width 7, want 6":                           func(r *table.Row) { r.Width = 7 },
	} {
		r := row(3, func(r *table.Row) { r.Params, r.Width = 126, 6 })
		change(&r)
		_, err := table.Match(s, s.Trials(in, classes), []table.Row{r})
		if (err != nil || want != "") && (err == nil || err.Error() != want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestCompare: results that the study cannot have by its settings and pictures are refused.
func TestCompare(t *testing.T) {
	t.Parallel()
	s := studies(t)[0]
	s.Batch, s.EvaluateEvery = 64, 2
	pictures := func(int) (table.Pictures, error) {
		return table.Pictures{Train: 150, Validation: 20, Test: 50}, nil
	}
	rate := func(s search.Study, epoch, steps int) float64 { return s.LearningRate / float64(epoch*steps) }
	results := func() []search.TrialState {
		in, classes := s.Shape()
		state := search.TrialState{Trial: s.Trials(in, classes)[0]}
		for n := range 3 {
			e := search.Epoch{Number: n + 1, LearningRate: rate(s, n+1, 2) * (1 + 1e-14), TrainTotal: 128}
			if n > 0 {
				e.ValidationTotal, e.TestTotal = 20, 50
			}
			state.History = append(state.History, e)
		}
		return []search.TrialState{state}
	}
	for want, change := range map[string]func(e []search.Epoch){
		"": func(e []search.Epoch) {},
		"epoch 2: learning_rate is 0.5, but in study pairs it is 0.025": func(e []search.Epoch) { e[1].LearningRate = 0.5 },
		"epoch 1: learning_rate is 0, but in study pairs it is 0.05":    func(e []search.Epoch) { e[0].LearningRate = 0 },
		"epoch 1: train_total is 150, but in study pairs it is 128":     func(e []search.Epoch) { e[0].TrainTotal = 150 },
		"epoch 2: validation_total is 0, but in study pairs it is 20":   func(e []search.Epoch) { e[1].ValidationTotal = 0 },
		"epoch 3: test_total is 51, but in study pairs it is 50":        func(e []search.Epoch) { e[2].TestTotal = 51 },
		"epoch 1: it was evaluated, but study pairs evaluates every 2 epochs and the last one": func(e []search.Epoch) {
			e[0].TestTotal = 50
		},
		"epoch 3: it was not evaluated, but study pairs evaluates every 2 epochs and the last one": func(e []search.Epoch) {
			e[2].TestTotal, e[2].ValidationTotal = 0, 0
		},
	} {
		list := results()
		change(list[0].History)
		err := table.Compare(s, list, pictures, rate)
		if (err != nil || want != "") && (err == nil || !strings.HasSuffix(err.Error(), ", "+want)) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err := table.Compare(s, results(), func(int) (table.Pictures, error) { return table.Pictures{Test: 50}, nil }, rate); err == nil {
		t.Error("a study without training pictures has results")
	}
	list := results()
	list[0].History[2].TestTotal = 1000
	if err := table.Compare(s, list, nil, rate); err != nil {
		t.Errorf("without the pictures: %v", err)
	}
}

// TestRecorded: all results that the repository keeps can be read.
func TestRecorded(t *testing.T) {
	t.Parallel()
	for _, path := range recorded(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f, err := table.Read(text)
		if err == nil {
			_, err = table.Trials(f.Rows)
		}
		if err != nil || len(f.Rows) == 0 {
			t.Errorf("%s: %d rows, %v", path, len(f.Rows), err)
		}
	}
}

func recorded(t testing.TB) []string {
	var all []string
	for _, pattern := range []string{"results/*/epochs.csv", "results/*/trials.csv", "results/replay/*.csv",
		"results/*/results.json"} {
		list, err := filepath.Glob("../../studies/" + pattern)
		if err != nil || len(list) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(list), err)
		}
		all = append(all, list...)
	}
	return all
}

// FuzzRead: no text makes Read panic; rows that it returns can be written and read back.
func FuzzRead(f *testing.F) {
	for _, s := range studies(f) {
		in, classes := s.Shape()
		var rows []table.Row
		for i, t := range s.Trials(in, classes) {
			t.Status, t.Error = search.Done, "<error>"
			rows = append(rows, table.NewRow(s, t, search.Epoch{Number: i % 4, TrainLoss: math.Inf(1), TestTotal: 5,
				TestLoss: 2.5}))
		}
		for _, write := range writers {
			var b bytes.Buffer
			if err := write(&b, s, slices.Values(rows), true); err != nil {
				f.Fatal(err)
			}
			f.Add(b.Bytes())
		}
	}
	f.Add([]byte("network,params\n"))
	f.Add([]byte(`{"settings": {}, "trials": [{}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := table.Read(text)
		if err != nil {
			return
		}
		s := studies(t)[0]
		write, form := writers["csv"], "csv"
		if file.Study != nil {
			s, write, form = *file.Study, writers["json"], "json"
		} else if len(file.Rows) > 0 && file.Rows[0].Network != "" {
			s = studies(t)[1]
		}
		var one, two bytes.Buffer
		if err := write(&one, s, slices.Values(file.Rows), true); err != nil {
			t.Fatal(err)
		}
		again, err := table.Read(one.Bytes())
		if err != nil {
			t.Fatalf("%s: %v\n%s", form, err, &one)
		}
		if err := write(&two, s, slices.Values(again.Rows), true); err != nil || one.String() != two.String() {
			t.Fatalf("%s: %v\n%s\nwant\n%s", form, err, &two, &one)
		}
		table.Trials(file.Rows)
	})
}
