package search

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// maxSeeds is the largest number of seeds of a study, and maxSeed the largest seed.
const (
	maxSeeds = 10_000
	maxSeed  = 1_000_000_000
)

// Seeds are the seeds of a study, in rising order. A study file has their number n for the seeds
// 0 … n − 1, or lists them.
type Seeds []int

// FirstSeeds returns the seeds 0 … n − 1.
func FirstSeeds(n int) Seeds {
	s := make(Seeds, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// areFirst reports whether the seeds are 0 … n − 1, which are stored as the number n.
func (s Seeds) areFirst() bool {
	for i, seed := range s {
		if seed != i {
			return false
		}
	}
	return true
}

// String returns the form of a study file: "5", or "[5, 6, 7]".
func (s Seeds) String() string {
	if s.areFirst() {
		return strconv.Itoa(len(s))
	}
	return strings.Join(strings.Fields(fmt.Sprint([]int(s))), ", ")
}

// MarshalJSON returns the number of the seeds 0 … n − 1, and a list of all others.
func (s Seeds) MarshalJSON() ([]byte, error) {
	if s.areFirst() {
		return strconv.AppendInt(nil, int64(len(s)), 10), nil
	}
	return json.Marshal([]int(s))
}

// MarshalTOML returns the form of a study file, which is that of JSON.
func (s Seeds) MarshalTOML() ([]byte, error) { return s.MarshalJSON() }

// UnmarshalJSON reads a number or a list.
func (s *Seeds) UnmarshalJSON(text []byte) error {
	var n int
	if err := json.Unmarshal(text, &n); err == nil {
		if n < 0 || n > maxSeeds {
			return fmt.Errorf("seeds %d: want 1 to %d", n, maxSeeds)
		}
		*s = FirstSeeds(n)
		return nil
	}
	var list []int
	if err := json.Unmarshal(text, &list); err != nil || len(list) == 0 {
		return fmt.Errorf("seeds: want their number, like 5, or a list of whole numbers, like [5, 6, 7]")
	}
	*s = list
	return nil
}

// What a list of numbers in TOML may have and JSON may not: comments and '_' between digits, and a
// comma after the last number.
var (
	tomlComment = regexp.MustCompile(`#[^\n]*|_`)
	tomlComma   = regexp.MustCompile(`,\s*\]`)
)

// UnmarshalTOML reads the value of a study file.
func (s *Seeds) UnmarshalTOML(value []byte) error {
	value = tomlComma.ReplaceAll(tomlComment.ReplaceAll(value, nil), []byte("]"))
	return s.UnmarshalJSON(bytes.TrimSpace(value))
}

// normalize checks the seeds and brings them into rising order.
func (s *Seeds) normalize(c *checker) {
	*s = slices.Clone(*s) // copies of the study share the old slice, which must not change
	slices.Sort(*s)
	c.check(len(*s) >= 1 && len(*s) <= maxSeeds, "seeds %d: want 1 to %d", len(*s), maxSeeds)
	for i, seed := range *s {
		c.check(seed >= 0 && seed <= maxSeed, "seeds: %d: want 0 to %d", seed, maxSeed)
		c.check(i == 0 || seed != (*s)[i-1], "seeds: %d is listed twice", seed)
	}
}

// Tolerance is a fraction. A study file has it as a number, 0.024, or as a percentage in quotes,
// "2.4%".
type Tolerance float64

// UnmarshalTOML reads the value of a study file.
func (t *Tolerance) UnmarshalTOML(value []byte) error {
	text := strings.TrimSpace(string(value))
	scale := 1.0
	if inner := strings.Trim(text, `"'`); inner != text {
		percent, ok := strings.CutSuffix(strings.TrimSpace(inner), "%")
		if text, scale = strings.TrimSpace(percent), 100; !ok {
			text = ""
		}
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return fmt.Errorf(`tolerance: want a number, like 0.024, or a percentage in quotes, like "2.4%%"`)
	}
	*t = Tolerance(x / scale)
	return nil
}
