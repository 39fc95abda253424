package main

import (
	"fmt"
	"math"
	"strings"

	"igcsearch/search"
)

// atChance warns of trainings that learned nothing: their accuracy is not more
// than three standard deviations above that of guessing.
func (r results) atChance(classes int) []string {
	const named = 5
	var list []string
	total := 0
	for _, t := range r.trials {
		correct, n := t.Last.Correct(r.study.Split)
		if t.Status != search.Done || n == 0 {
			continue
		}
		p := 1 / float64(classes)
		if float64(correct) > float64(n)*p+3*math.Sqrt(float64(n)*p*(1-p)) {
			continue
		}
		total++
		if len(list) < named {
			list = append(list, t.Key.String())
		}
	}
	if total == 0 {
		return nil
	}
	if total > named {
		list = append(list, "…")
	}
	return []string{fmt.Sprintf("%s of %d ended at chance, %.3g %% with %d classes: %s: "+
		"try more epochs or pictures, or another learning rate",
		count(total, "training"), len(r.trials), 100/float64(classes), classes, strings.Join(list, ", "))}
}
