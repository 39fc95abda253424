package search

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// epochJSON is an Epoch as JSON.
type epochJSON struct {
	Number            int   `json:"number"`
	LearningRate      exact `json:"learning_rate"`
	TrainLoss         exact `json:"train_loss"`
	TrainCorrect      int   `json:"train_correct"`
	TrainTotal        int   `json:"train_total"`
	ValidationCorrect int   `json:"validation_correct"`
	ValidationTotal   int   `json:"validation_total"`
	TestCorrect       int   `json:"test_correct"`
	TestTotal         int   `json:"test_total"`
	ValidationLoss    exact `json:"validation_loss"`
	TestLoss          exact `json:"test_loss"`
	TrainSeconds      exact `json:"train_seconds"`
	EvalSeconds       exact `json:"eval_seconds"`
}

// MarshalJSON keeps every bit: it is how workers hand results over.
func (e Epoch) MarshalJSON() ([]byte, error) {
	return json.Marshal(epochJSON{e.Number, exact(e.LearningRate), exact(e.TrainLoss), e.TrainCorrect, e.TrainTotal,
		e.ValidationCorrect, e.ValidationTotal, e.TestCorrect, e.TestTotal, exact(e.ValidationLoss), exact(e.TestLoss),
		exact(e.TrainSeconds), exact(e.EvalSeconds)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Epoch) UnmarshalJSON(text []byte) error {
	var j epochJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*e = Epoch{j.Number, float64(j.LearningRate), float64(j.TrainLoss), j.TrainCorrect, j.TrainTotal,
		j.ValidationCorrect, j.ValidationTotal, j.TestCorrect, j.TestTotal, float64(j.ValidationLoss),
		float64(j.TestLoss), float64(j.TrainSeconds), float64(j.EvalSeconds)}
	return nil
}

// exact is a float64 in JSON, which has neither NaN nor infinities: they are
// their bits, in quotes.
type exact float64

func (x exact) MarshalJSON() ([]byte, error) {
	if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
		return fmt.Appendf(nil, `"%016x"`, math.Float64bits(f)), nil
	}
	return strconv.AppendFloat(nil, float64(x), 'g', -1, 64), nil
}

func (x *exact) UnmarshalJSON(text []byte) error {
	if quoted, ok := bytes.CutPrefix(text, []byte(`"`)); ok {
		bits, err := strconv.ParseUint(string(bytes.TrimSuffix(quoted, []byte(`"`))), 16, 64)
		*x = exact(math.Float64frombits(bits))
		return err
	}
	f, err := strconv.ParseFloat(string(text), 64)
	*x = exact(f)
	return err
}
