package search_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"igcsearch/search"
	"igcsearch/space"
)

// withAxes returns a normalised study with axes.
func withAxes(t *testing.T, change func(*search.Study)) search.Study {
	t.Helper()
	s := search.Default()
	s.Name, s.Dataset, s.Pairs, s.Seeds = "some", "synthetic", []string{"3x2", "2x3"}, search.FirstSeeds(2)
	change(&s)
	return normal(t, s)
}

// Points name their values in one way: the text is the key of a trial in a database.
func TestPoint(t *testing.T) {
	t.Parallel()
	p, err := search.ParsePoint(" learning_rate = 5e-2,batch=64")
	if err != nil || p != "batch=64,learning_rate=0.05" || p.String() != "batch 64, learning_rate 0.05" {
		t.Errorf("got %q, %v", p, err)
	}
	if q := p.Without("batch"); q != "learning_rate=0.05" || !p.In(q) || q.In(p) || !p.In("") {
		t.Errorf("without batch: %q", q)
	}
	for _, wrong := range []string{"rate=1", "batch", "batch=", "batch=1.5", "learning_rate=NaN", "learning_rate=1,learning_rate=2",
		",", "batch=64,", "learning_rate=0.1 seed 3"} {
		if p, err := search.ParsePoint(wrong); err == nil {
			t.Errorf("%q is read as %q", wrong, p)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		var p search.Point
		for _, key := range rapid.SliceOfDistinct(rapid.SampledFrom(search.AxisSettings()), rapid.ID).Draw(t, "keys") {
			if search.WholeNumbers(key) {
				p = p.With(key, float64(rapid.IntRange(1, 1<<30).Draw(t, key)))
			} else {
				p = p.With(key, rapid.Float64Range(0, 1e6).Draw(t, key))
			}
		}
		if again, err := search.ParsePoint(string(p)); err != nil || again != p {
			t.Fatalf("%q is read as %q, %v", p, again, err)
		}
	})
}

// FuzzPoint: whatever is read as a point has one text, which is read as the same point.
func FuzzPoint(f *testing.F) {
	for _, text := range []string{"", "batch=64,learning_rate=0.05", "learning_rate=5e-2", "epochs=1e3", "batch=0x10",
		"weight_decay=-0", "batch=1_0", "epochs=1,epochs=2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := search.ParsePoint(text)
		if err != nil {
			return
		}
		again, err := search.ParsePoint(string(p))
		if err != nil || again != p {
			t.Fatalf("%q is read as %q, which is read as %q, %v", text, p, again, err)
		}
		for _, key := range search.AxisSettings() {
			x, ok := p.Value(key)
			if y, also := again.Value(key); ok != also || x != y {
				t.Fatalf("%q: %s is %g, then %g", text, key, x, y)
			}
		}
	})
}

// A study crosses its networks with the values of its lists, and each trial is trained as in a study of these values.
func TestAxes(t *testing.T) {
	t.Parallel()
	s := withAxes(t, func(s *search.Study) {
		s.BNStatistics, s.BNPictures = search.BNPrecise, 48
		s.Axes = s.Axes.With("learning_rate", []float64{0.2, 0.05}).With("batch", []float64{32, 64}).With("epochs", []float64{7})
	})
	if got := s.Axes[0].String() + s.Axes[1].String() + s.Axes[2].String(); got !=
		"epochs = [7]batch = [32, 64]learning_rate = [0.05, 0.2]" {
		t.Errorf("the axes are %s", got)
	}
	trials := s.Trials(space.Shape{C: 3, H: 16, W: 16}, 10)
	if len(trials) != 2*1*2*2*2 {
		t.Fatalf("%d trials", len(trials))
	}
	if got := trials[0].Key.String(); got != "L2M3 epochs 7, batch 32, learning_rate 0.05 seed 0" || trials[0].Epochs != 7 {
		t.Errorf("the first trial is %s of %d epochs", got, trials[0].Epochs)
	}
	keys := s.Keys()
	for _, tr := range trials {
		if !keys[tr.Key] || !s.HasPoint(tr.At) {
			t.Errorf("%v is none of the keys", tr.Key)
		}
		alone := withAxes(t, func(s *search.Study) {
			s.BNStatistics, s.BNPictures, s.Epochs = search.BNPrecise, 48, 7
			batch, _ := tr.At.Value("batch")
			s.Batch = int(batch)
			s.LearningRate, _ = tr.At.Value("learning_rate")
		})
		if got := s.At(tr.At); !reflect.DeepEqual(got.Recipe, alone.Recipe) || got.Fingerprint() != alone.Fingerprint() {
			t.Errorf("%v is trained by %+v, want %+v", tr.Key, got.Recipe, alone.Recipe)
		}
	}
	for _, p := range []search.Point{"", "epochs=7,batch=32", "batch=32,epochs=7,learning_rate=0.1", "epochs=7,batch=32,learning_rate=0.1,weight_decay=0"} {
		if s.HasPoint(p) {
			t.Errorf("the study may have trials at %q", p)
		}
	}

	// What is stored is read back, and normalised already.
	var again search.Study
	if err := json.Unmarshal(s.Settings(), &again); err != nil {
		t.Fatal(err)
	}
	again.Execution = s.Execution
	if again = normal(t, again); string(again.Settings()) != string(s.Settings()) || again.Fingerprint() != s.Fingerprint() {
		t.Errorf("stored as %s, read as %s", s.Settings(), again.Settings())
	}
}

// A list is part of a study's extent, and one value grows to a list: the trials keep what they have.
func TestGrowAxes(t *testing.T) {
	t.Parallel()
	one := withAxes(t, func(s *search.Study) { s.LearningRate = 0.05 })
	few := withAxes(t, func(s *search.Study) { s.Axes = s.Axes.With("learning_rate", []float64{0.05}) })
	many := withAxes(t, func(s *search.Study) { s.Axes = s.Axes.With("learning_rate", []float64{0.05, 0.1}) })
	decay := withAxes(t, func(s *search.Study) {
		s.LearningRate, s.Axes = 0.05, s.Axes.With("weight_decay", []float64{0, 1e-4})
	})

	if few.Fingerprint() != many.Fingerprint() || one.Along(many.Axes).Fingerprint() != many.Fingerprint() {
		t.Error("a longer list is another study")
	}
	if one.Fingerprint() == many.Fingerprint() {
		t.Error("the trials of a study with a list have other keys, so its fingerprint must differ")
	}
	if diff := search.Diff(one, many); len(diff) > 0 {
		t.Errorf("a value grown to a list: %q", diff)
	}
	if got := search.Changes(one, many); !slices.Equal(got, []string{"learning_rate: 0.05 there, [0.05, 0.1] here"}) {
		t.Errorf("changes: %q", got)
	}
	if got := search.Diff(many, one); !slices.Equal(got, []string{"learning_rate: a list there, 0.05 here"}) {
		t.Errorf("a list that becomes a value: %q", got)
	}
	for key := range one.Keys() {
		along := one.KeyAlong(key, many.Axes)
		if !many.Keys()[along] {
			t.Errorf("%v is %v along the list, which is no trial", key, along)
		}
		if back, ok := one.KeyWithin(along); !ok || back != key {
			t.Errorf("%v is %v within the study of one value", along, back)
		}
		along.At = "learning_rate=0.1"
		if _, ok := one.KeyWithin(along); ok {
			t.Errorf("%v is a trial of the study with the learning rate 0.05", along)
		}
	}

	joined, err := many.Join(decay)
	if err != nil {
		t.Fatal(err)
	}
	if got := joined.Axes.Points(); len(got) != 4 || got[0] != "learning_rate=0.05,weight_decay=0" {
		t.Errorf("joined points %q", got)
	}
	if other, err := decay.Join(many); err != nil || string(other.Settings()) != string(joined.Settings()) {
		t.Errorf("joined the other way: %s, %v", other.Settings(), err)
	}
}

func TestWrongAxes(t *testing.T) {
	t.Parallel()
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(i + 1)
	}
	for _, c := range []struct {
		want   string
		change func(*search.Study)
	}{
		{"learning_rate -1: want > 0, at most 1e6", func(s *search.Study) {
			s.Axes = s.Axes.With("learning_rate", []float64{0.1, -1})
		}},
		{"batch 1.5: want whole numbers", func(s *search.Study) { s.Axes = s.Axes.With("batch", []float64{1.5}) }},
		{"batch 5000: want 1 to 4096", func(s *search.Study) { s.Axes = s.Axes.With("batch", []float64{5000, 16}) }},
		{"epochs: 8 is listed twice", func(s *search.Study) { s.Axes = s.Axes.With("epochs", []float64{8, 4, 8}) }},
		{"momentum = [0.9]: want epochs, batch, learning_rate, weight_decay", func(s *search.Study) {
			s.Axes = search.Axes{{Key: "momentum", Values: []float64{0.9}}}
		}},
		{"epochs: 0 values: want 1 to 100", func(s *search.Study) { s.Axes = search.Axes{{Key: "epochs"}} }},
		{"batch: it is listed twice", func(s *search.Study) {
			s.Axes = search.Axes{{Key: "batch", Values: []float64{16}}, {Key: "batch", Values: []float64{32}}}
		}},
		{"strategy race: it compares networks, each with one recipe: give learning_rate one value, or use strategy grid",
			func(s *search.Study) {
				*s = s.WithStrategy(search.StrategyRace)
				s.Axes = s.Axes.With("learning_rate", []float64{0.1, 0.2})
			}},
		{"batch: 10000 combinations of the lists: want at most 1000", func(s *search.Study) {
			s.Axes = s.Axes.With("batch", hundred).With("learning_rate", hundred)
		}},
	} {
		s := search.Default()
		s.Name, s.Dataset, s.Pairs = "some", "synthetic", []string{"3x2"}
		c.change(&s)
		_, err := s.Normalize()
		var texts []string
		if joined, ok := errors.AsType[interface {
			error
			Unwrap() []error
		}](err); ok {
			for _, e := range joined.Unwrap() {
				texts = append(texts, e.Error())
			}
		}
		if got := strings.Join(texts, "; "); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}
