package search_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"igcsearch/search"
)

func TestSeeds(t *testing.T) {
	t.Parallel()
	t.Run("the first seeds are stored as their number, others as a list", func(t *testing.T) {
		for _, c := range []struct {
			text  string
			seeds search.Seeds
		}{{"1", search.Seeds{0}}, {"3", search.Seeds{0, 1, 2}}, {"[5,6,7]", search.Seeds{5, 6, 7}},
			{"[1]", search.Seeds{1}}} {
			s := budgetStudy()
			s.Seeds = slices.Clone(c.seeds)
			slices.Reverse(s.Seeds)
			given := slices.Clone(s.Seeds)
			normalised := normal(t, s)
			if text := string(normalised.Settings()); !strings.Contains(text, `"seeds":`+c.text+`,`) {
				t.Errorf("seeds %v are stored as %s", c.seeds, text)
			}
			if !slices.Equal(s.Seeds, given) {
				t.Errorf("Normalize changed its argument: %v", s.Seeds)
			}
			var back search.Seeds
			if err := json.Unmarshal([]byte(c.text), &back); err != nil || !slices.Equal(back, c.seeds) {
				t.Errorf("%s is read as %v, %v", c.text, back, err)
			}
		}
	})
	t.Run("what is no number and no list of seeds is refused", func(t *testing.T) {
		for _, text := range []string{"-1", "2000000000", "1.5", "[]", "[0.5]", `"5"`, "{}"} {
			var back search.Seeds
			if err := json.Unmarshal([]byte(text), &back); err == nil {
				t.Errorf("%s is read as %v", text, back)
			}
		}
		for want, seeds := range map[string]search.Seeds{
			"seeds: -1: want 0 to 1000000000":         {-1, 0},
			"seeds: 1000000001: want 0 to 1000000000": {1_000_000_001},
			"seeds: 4 is listed twice":                {4, 3, 4},
		} {
			s := budgetStudy()
			s.Seeds = seeds
			if _, err := s.Normalize(); err == nil || err.Error() != want {
				t.Errorf("%v: got %v, want %s", seeds, err, want)
			}
		}
	})
}
