// Package search is the domain of igcsearch: a Study asks which pair (L, M)
// is best under a parameter budget, or which of some networks is, a Trial trains
// one of them from one seed, and the Runner works through the trials of a study, several
// at once.
//
// The package declares what it needs of the outside as interfaces, Trainer
// and Store. It knows no database, no device and no file format.
package search

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"igcsearch/space"
)

// Study holds the settings of one study, in the order of a study file. All but
// Title and Execution take part in Fingerprint: two studies with the same
// fingerprint have the same results, bit for bit, on the same instruction set.
type Study struct {
	// Name identifies the study in a database; letters, digits, '-', '_', '.'.
	Name string `toml:"name" json:"name"`
	// Title is one line for people, shown beside the name.
	Title string `toml:"title" json:"title,omitempty"`

	Pictures
	Design
	Recipe
	Selection

	// DataSum identifies the pictures themselves; the trainer's data reader
	// gives it, a study file cannot.
	DataSum string `toml:"-" json:"data_sum,omitempty"`
	// Unreadable is how many pictures of a folder were left out because they
	// cannot be read; from the trainer's data reader, like DataSum.
	Unreadable int `toml:"-" json:"unreadable,omitempty"`

	Execution
}

// Default returns the paper's protocol for CIFAR (Section 5.2) on the network
// of Figure 3; Name, Dataset and Budget or Pairs are left to fill in.
func Default() Study {
	return Study{
		Pictures: Pictures{Split: SplitTest, Augment: AugmentCropMirror, Pad: 4},
		Design:   Design{Kernel: 9, Tolerance: 0.024, Blocks: 6, Seeds: 5},
		Recipe: Recipe{Epochs: 400, Batch: 64, LearningRate: 0.1, Drops: []float64{0.5, 0.75, 0.875},
			Momentum: 0.9, WeightDecay: 1e-4, WeightDecayOn: DecayAll, BNPictures: 2048, EvaluateEvery: 1},
		Selection: Selection{Halving: Halving{Reduction: 3, Systems: 64}, Race: Race{Alpha: 0.05, Systems: 64}},
		Execution: Execution{RetryCrashed: 1, RetryTimeout: 1, RetryMemory: 1, StopAfter: 5},
	}
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)

// Normalize checks the settings and returns them in the one form that is stored
// and hashed; each part says what that form is. The error lists every setting
// that is wrong.
func (s Study) Normalize() (Study, error) {
	var c checker
	c.check(nameRE.MatchString(s.Name),
		"name %q: want 1 to 100 letters, digits, '.', '_' or '-', starting with a letter or digit", s.Name)
	s.Pictures.normalize(&c)
	s.Recipe.normalize(&c)
	s.Selection.normalize(&c, s)
	s.Execution.normalize(&c, s)
	s.Design.normalize(&c, s)
	return s, errors.Join(c.errs...)
}

// checker collects what is wrong with the settings of a study.
type checker struct{ errs []error }

// check notes an error unless ok.
func (c *checker) check(ok bool, format string, a ...any) {
	if !ok {
		c.errs = append(c.errs, fmt.Errorf(format, a...))
	}
}

// Settings is the canonical form of what defines the results of a normalised
// study, as JSON.
func (s Study) Settings() []byte {
	s.Title = "" // text for people; changing it is not another study
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // NaN is refused by Normalize, nothing else can fail
	}
	return b
}

// Fingerprint is the SHA-256 of Settings in hexadecimal.
func (s Study) Fingerprint() string {
	sum := sha256.Sum256(s.Settings())
	return hex.EncodeToString(sum[:])
}

// olden are the values of settings that older versions did not have, and that are
// stored as "".
var olden = map[string]string{"weight_decay_on": DecayWeights, "schedule": ScheduleStep, "bn_statistics": BNRunning}

// Diff lists the settings in which two normalised studies differ, one line
// each, "epochs: 400 there, 20 here"; empty if their fingerprints agree.
func Diff(there, here Study) []string {
	var lines []string
	differ := func(key string, x, y any) {
		if a, b := fmt.Sprint(x), fmt.Sprint(y); a != b {
			none := cmp.Or(olden[key], "not set")
			lines = append(lines, fmt.Sprintf("%s: %s there, %s here", key, cmp.Or(a, none), cmp.Or(b, none)))
		}
	}
	a, b := reflect.ValueOf(there), reflect.ValueOf(here)
	for _, f := range reflect.VisibleFields(a.Type()) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		x, y := a.FieldByIndex(f.Index), b.FieldByIndex(f.Index)
		switch {
		case f.Anonymous || isRunOption(f) || key == "title":
		case f.Type.Kind() != reflect.Struct:
			differ(key, x.Interface(), y.Interface())
		default:
			for inner := range f.Type.Fields() {
				differ(key+"."+inner.Tag.Get("json"), x.FieldByIndex(inner.Index).Interface(),
					y.FieldByIndex(inner.Index).Interface())
			}
		}
	}
	return lines
}

// Trials returns every (network, seed) of a normalised study as pending trials, one
// seed of all networks after the other, so that what is finished compares them all.
// Those of a seed come longest first by multiply–adds, so that a pool of workers ends
// together.
func (s Study) Trials(in space.Shape, classes int) []Trial {
	var trials []Trial
	order := map[space.System]int{}
	for i, system := range s.SystemList() {
		net, err := system.Network(s.Plan(in, classes))
		if err != nil {
			panic(err) // Normalize has built it
		}
		order[system] = i
		for seed := range s.Seeds {
			trials = append(trials, Trial{Key: Key{System: system, Seed: seed}, Status: Pending, Epochs: s.Epochs,
				MultiplyAdds: net.MultiplyAdds(), Params: net.Params()})
		}
	}
	slices.SortStableFunc(trials, func(a, b Trial) int {
		return cmp.Or(cmp.Compare(a.Seed, b.Seed), cmp.Compare(b.MultiplyAdds, a.MultiplyAdds),
			cmp.Compare(order[a.System], order[b.System]))
	})
	return trials
}
