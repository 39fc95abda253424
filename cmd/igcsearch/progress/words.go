package progress

import (
	"fmt"
	"math"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
)

// TimeLeft tells how long the rest of a study takes: "1m20s left".
func TimeLeft(f search.Forecast, s search.Study) string {
	if !f.Known {
		return "time left not known yet"
	}
	return Remaining(f, s) + " left"
}

// Remaining is the time of a forecast: "1m20s", or "at most 1m20s" if the
// strategy of the study may not want all trials.
func Remaining(f search.Forecast, s search.Study) string {
	switch {
	case !f.Known:
		return "not known yet"
	case s.Strategy != "":
		return "at most " + Span(f.Seconds)
	}
	return Span(f.Seconds)
}

// Span writes seconds with two units: "2d3h", "1h05m", "1m20s", "9s".
func Span(seconds float64) string {
	if !(seconds < 1e9) {
		return "years"
	}
	s := int(math.Round(max(seconds, 0)))
	switch {
	case s >= 86400:
		return fmt.Sprintf("%dd%dh", s/86400, s%86400/3600)
	case s >= 3600:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	case s >= 60:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	}
	return fmt.Sprintf("%ds", s)
}

// Rough writes seconds that are only an estimate: "2.5 hours", "1m20s", "a second".
func Rough(seconds float64) string {
	if seconds >= 3600 && seconds < 1e9 {
		return fmt.Sprintf("%.1f hours", seconds/3600)
	}
	if seconds < 1 {
		return "a second"
	}
	return Span(seconds)
}

// number writes a large number for people: "47.0 million", "8192".
func number(n int) string {
	if n >= 1e6 {
		return fmt.Sprintf("%.1f million", float64(n)/1e6)
	}
	return fmt.Sprint(n)
}

// size writes bytes for people: "3.1 MB".
func size(bytes float64) string {
	switch {
	case bytes >= 1e9:
		return fmt.Sprintf("%.1f GB", bytes/1e9)
	case bytes >= 1e6:
		return fmt.Sprintf("%.1f MB", bytes/1e6)
	}
	return fmt.Sprintf("%.0f kB", math.Ceil(bytes/1e3))
}

// scores lists the accuracies of an epoch that were measured.
func scores(e search.Epoch) string {
	return score(e, search.SplitValidation) + score(e, search.SplitTest)
}

// score is the accuracy of an epoch on a split, "" if it was not measured.
func score(e search.Epoch, split string) string {
	correct, total := e.Correct(split)
	if total == 0 {
		return ""
	}
	return fmt.Sprintf(", %s %s %%", split, report.Percent(correct, total))
}
