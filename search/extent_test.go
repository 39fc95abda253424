package search_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"igcsearch/search"
	"igcsearch/space"
)

// drawPair returns two normalised studies of a few networks, whose settings are drawn. Half of the
// pairs have most settings in common that say which study it is.
func drawPair(t *rapid.T) (a, b search.Study) {
	drawn, alike := map[string]int{}, rapid.Bool().Draw(t, "alike")
	a = drawStudy(t, "a", drawn, nil)
	if !alike {
		drawn = nil
	}
	return a, drawStudy(t, "b", map[string]int{}, drawn)
}

// drawStudy notes in drawn which values it has drawn. It takes the recipe, the pictures and the
// layout from same, if that is not nil.
func drawStudy(t *rapid.T, label string, drawn, same map[string]int) search.Study {
	for try := 0; ; try++ {
		s := budgetStudy()
		draw := func(name string, set ...func()) {
			i, fixed := same[name]
			if !fixed || !slices.Contains([]string{"layout", "blocks", "recipe", "pictures"}, name) {
				i = rapid.IntRange(0, len(set)-1).Draw(t, fmt.Sprint(label, ".", name, try))
			}
			drawn[name] = i
			set[i]()
		}
		none := func() {}
		draw("networks", none,
			func() { s.Budget, s.Pairs = 0, []string{"40x2", "64x1"} },
			func() { s.Budget, s.Pairs = 0, []string{"40x2", "28x3"} },
			func() { s.Budget, s.Systems = 0, []string{"IGC-L40M2", "IGC-L28M3+Ident."} },
			func() { s.Budget, s.Systems = 0, []string{"IGC-L40M2+Proj", "SumFusion"} },
			func() { s.Budget, s.Systems, s.Layout = 0, []string{"IGC-L24M2-D20", "IGC-L24M2"}, space.Stages })
		draw("variant", none, none, func() { s.Variant = "Proj" })
		draw("layout", none, none, func() { s.Layout = space.Stages })
		draw("depths", none, none, func() { s.Depths = []int{8} }, func() { s.Depths = []int{20, 8} })
		draw("blocks", none, none, func() { s.Blocks = 3 })
		draw("seeds", none, func() { s.Seeds = search.Seeds{4, 7} }, func() { s.Seeds = search.FirstSeeds(2) })
		draw("recipe", none, none, func() { s.Epochs = 20 }, func() { s.Schedule = search.ScheduleCosine })
		draw("pictures", none, none, func() { s.Validation = 500 }, func() { s.Augment = search.AugmentNone })
		draw("selection", none,
			func() { s.Strategy = search.StrategyRace }, func() { s.Strategy = search.StrategyHalving })
		draw("split", none, func() { s.Split = search.SplitValidation })
		draw("name", none, func() { s.Name = "other" })
		if s, err := s.Normalize(); err == nil {
			return s
		}
		if try == 20 {
			t.Skip("no study")
		}
	}
}

// TestIdentity: what the database takes for the same trial has the same bits.
func TestIdentity(t *testing.T) {
	t.Parallel()
	in := space.Shape{C: 3, H: 32, W: 32}
	t.Run("studies with one fingerprint train the same networks in the same way, from the same pictures",
		rapid.MakeCheck(func(t *rapid.T) {
			a, b := drawPair(t)
			recipe, pictures := reflect.DeepEqual(a.Recipe, b.Recipe), a.Pictures
			pictures.Split = b.Split
			if a.Fingerprint() != b.Fingerprint() {
				return
			}
			if !recipe || pictures != b.Pictures || a.DataSum != b.DataSum {
				t.Errorf("one fingerprint, but different trainings:\n%s\n%s", a.Settings(), b.Settings())
			}
			for key := range a.Keys() {
				if !b.Keys()[key] {
					continue
				}
				x, err := key.System.Network(a.Plan(in, 10))
				y, err2 := key.System.Network(b.Plan(in, 10))
				if err != nil || err2 != nil || !reflect.DeepEqual(x, y) {
					t.Errorf("%v is another network:\n%s\n%s", key, a.Settings(), b.Settings())
				}
			}
		}))
	t.Run("two studies are joined to one with the trials of both, and the fingerprint",
		rapid.MakeCheck(func(t *rapid.T) {
			a, b := drawPair(t)
			if a.Fingerprint() != b.Fingerprint() {
				return
			}
			joined, err := a.Join(b)
			if err != nil || joined.Fingerprint() != a.Fingerprint() || joined.Name != a.Name {
				t.Fatalf("%v:\n%s\n%s\n%s", err, a.Settings(), b.Settings(), joined.Settings())
			}
			keys := joined.Keys()
			for _, s := range []search.Study{a, b} {
				for key := range s.Keys() {
					if !keys[key] {
						t.Errorf("%v is lost:\n%s\n%s\n%s", key, a.Settings(), b.Settings(), joined.Settings())
					}
				}
			}
			if again, err := a.Join(a); err != nil || !reflect.DeepEqual(again, a) {
				t.Errorf("joined with itself, %s became %s, %v", a.Settings(), again.Settings(), err)
			}
			if got := joined.Trials(in, 100); len(got) != len(keys) {
				t.Errorf("%d trials of %d keys", len(got), len(keys))
			}
		}))
	t.Run("the smallest extent of both", func(t *testing.T) {
		small := budgetStudy()
		small.Budget, small.Pairs, small.Seeds = 0, []string{"40x2"}, search.Seeds{5, 6}
		a, b := normal(t, budgetStudy()), normal(t, small)
		joined, err := b.Join(a)
		if err != nil || joined.Seeds.String() != "7" || !slices.Equal(joined.Pairs, a.Pairs) || joined.Budget != 4672 {
			t.Errorf("got %s, %v", joined.Settings(), err)
		}
	})
}

func TestTrialsLike(t *testing.T) {
	t.Parallel()
	t.Run("a folder's networks get their sizes from other trials, or there is an error", func(t *testing.T) {
		s := folderStudy(32)
		s.Seeds = search.FirstSeeds(2)
		s = normal(t, s)
		want := s.Trials(space.Shape{C: 3, H: 32, W: 32}, 7)
		half := want[:len(want)/2] // all networks of one seed
		if got, err := s.TrialsLike(half); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		if _, err := s.TrialsLike(half[1:]); err == nil || !strings.Contains(err.Error(), half[0].System.Label()) {
			t.Errorf("got %v, want an error with the network", err)
		}
	})
}
