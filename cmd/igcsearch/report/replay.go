package report

import (
	"fmt"
	"io"

	"igcsearch/search"
	"igcsearch/search/strategy"
)

// Replay is what strategies would have spent on a recorded study, and found.
type Replay struct {
	Study  search.Study
	Trials int             // that are recorded
	Epochs int             // that grid takes
	Best   strategy.Answer // of all that is recorded
	Orders int             // of the seeds and networks, over which Rows are means
	Rows   []ReplayRow
}

// ReplayRow is what one strategy did. Without a trained epoch only the reason is known.
type ReplayRow struct {
	Strategy string
	strategy.Spent
}

// Print writes the replay in one of the formats table and json.
func (r Replay) Print(stdout io.Writer, format string) error {
	if format == "json" {
		return JSON(stdout, r.toJSON())
	}
	number := func(v float64) string { // one decimal of a mean
		if r.Orders > 1 {
			return fmt.Sprintf("%.1f", v)
		}
		return fmt.Sprintf("%.0f", v)
	}
	t := NewTable("<strategy", "trials", "epochs", "of grid (%)", "<answer", "accuracy (%)", "best (%)",
		"regret (points)")
	reasons := ""
	for _, row := range r.Rows {
		if row.Reason != "" && (r.Orders == 1 || row.Epochs == 0) {
			reasons += fmt.Sprintf("%s: %s\n", row.Strategy, row.Reason)
		}
		if row.Epochs == 0 {
			t.Add(row.Strategy, "–", "–", "–", "–", "–", "–", "–")
			continue
		}
		t.Add(row.Strategy, number(row.Trials), number(row.Epochs), fmt.Sprintf("%.1f", 100*row.Share), row.Answer,
			fmt.Sprintf("%.2f", 100*row.Accuracy), fmt.Sprintf("%.0f", 100*row.Best),
			fmt.Sprintf("%.2f", 100*row.Regret))
	}
	for _, row := range r.Rows {
		if r.Orders > 1 && row.Strategy == search.StrategyPeak && row.Epochs > 0 {
			reasons += fmt.Sprintf("peak: %.0f %% of the orders ended with a claim; by the means of the record, %.0f %% of"+
				" the orders with a wrong one\n", 100*row.Claims, 100*row.Wrong)
		}
	}
	if reasons != "" {
		reasons = "\n" + reasons
	}
	_, err := fmt.Fprintf(stdout, "%s: %s recorded; the %s pictures decide: best is %s at %.2f %%;"+
		" grid takes %s\n\n%s%s", r.Study.Name, Count(r.Trials, "trial"), r.Study.DecidingSplit(),
		r.Best.System.Label(), 100*r.Best.Accuracy,
		Count(r.Epochs, "epoch"), t, reasons)
	return err
}

// replayRowJSON is one strategy; means over the repeats.
type replayRowJSON struct {
	Strategy string  `json:"strategy"`
	Trials   float64 `json:"trials"`
	Epochs   float64 `json:"epochs"`
	Share    float64 `json:"share"`    // of the epochs of grid
	Answer   string  `json:"answer"`   // the most frequent; "" if none
	Accuracy float64 `json:"accuracy"` // mean over all recorded trials of the answer, a fraction
	Best     float64 `json:"best"`     // share of the repeats whose answer is the best of all that is recorded
	Regret   float64 `json:"regret"`   // how far the answer lies below that, a fraction
	Claims   float64 `json:"claims"`   // share of the repeats that end with a claim of peak
	Wrong    float64 `json:"wrong"`    // share of the repeats whose claim is wrong by the means of the record
	Reason   string  `json:"reason"`   // of the last repeat
}

func (r Replay) toJSON() any {
	var rows []replayRowJSON
	for _, row := range r.Rows {
		rows = append(rows, replayRowJSON{row.Strategy, row.Trials, row.Epochs, row.Share, row.Answer, row.Accuracy,
			row.Best, row.Regret, row.Claims, row.Wrong, row.Reason})
	}
	return struct {
		Study   string          `json:"study"`
		Split   string          `json:"split"` // whose accuracies decide
		Trials  int             `json:"trials"`
		Epochs  int             `json:"epochs"` // of grid
		Answer  string          `json:"answer"` // of all that is recorded
		Repeats int             `json:"repeats"`
		Rows    []replayRowJSON `json:"strategies"`
	}{r.Study.Name, r.Study.DecidingSplit(), r.Trials, r.Epochs, r.Best.System.Label(), r.Orders, rows}
}
