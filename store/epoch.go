package store

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"math"
	"strings"

	"igcsearch/search"
	"igcsearch/space"
)

// epochColumn is a column of table epoch: its name, and its value in a search.Epoch, to be read or written.
type epochColumn struct {
	name  string
	value interface {
		sql.Scanner
		driver.Valuer
	}
}

// epochColumns are all columns of table epoch that hold what was measured. Every query of epochs is made from this
// list. A new metric of search.Epoch needs a line here and a column in the schema.
func epochColumns(e *search.Epoch) []epochColumn {
	return []epochColumn{
		{"number", (*whole)(&e.Number)},
		{"learning_rate", (*real)(&e.LearningRate)},
		{"train_loss", (*orNaN)(&e.TrainLoss)},
		{"train_correct", (*whole)(&e.TrainCorrect)},
		{"train_total", (*whole)(&e.TrainTotal)},
		{"validation_correct", (*whole)(&e.ValidationCorrect)},
		{"validation_total", (*whole)(&e.ValidationTotal)},
		{"test_correct", (*whole)(&e.TestCorrect)},
		{"test_total", (*whole)(&e.TestTotal)},
		{"train_seconds", (*real)(&e.TrainSeconds)},
		{"eval_seconds", (*real)(&e.EvalSeconds)},
		{"validation_loss", (*orZero)(&e.ValidationLoss)},
		{"test_loss", (*orZero)(&e.TestLoss)},
	}
}

// epochNames lists the names of epochColumns for SQL, each after a prefix such as "e.".
func epochNames(prefix string) string {
	var names []string
	for _, c := range epochColumns(new(search.Epoch)) {
		names = append(names, prefix+c.name)
	}
	return strings.Join(names, ", ")
}

// The values of columns. Scan converts numbers itself because package sql would write each as text and read it back,
// which takes most of the time of a large study.
type (
	whole  int     // NULL, which an outer join gives, is 0
	real   float64 // NULL is 0
	orNaN  float64 // NULL is NaN, which SQLite does not have
	orZero float64 // NULL is 0 and stands for "not recorded"
)

func (w *whole) Scan(v any) error {
	n, ok := v.(int64)
	if !ok && v != nil {
		return fmt.Errorf("a whole number is %T", v)
	}
	*w = whole(n)
	return nil
}

func (r *real) Scan(v any) error {
	x, ok := v.(float64)
	if !ok && v != nil {
		return fmt.Errorf("a number is %T", v)
	}
	*r = real(x)
	return nil
}

func (r *orNaN) Scan(v any) error {
	if v == nil {
		v = math.NaN()
	}
	return (*real)(r).Scan(v)
}

func (r *orZero) Scan(v any) error { return (*real)(r).Scan(v) }

func (w *whole) Value() (driver.Value, error) { return int64(*w), nil }
func (r *real) Value() (driver.Value, error)  { return float64(*r), nil }

func (r *orNaN) Value() (driver.Value, error) {
	if math.IsNaN(float64(*r)) {
		return nil, nil
	}
	return float64(*r), nil
}

func (r *orZero) Value() (driver.Value, error) {
	if *r == 0 {
		return nil, nil
	}
	return float64(*r), nil
}

// systemNames reads the names of networks and parses each name once.
type systemNames map[string]space.System

// into returns what Rows.Scan reads a name into.
func (n systemNames) into(s *space.System) any { return systemName{n, s} }

type systemName struct {
	known systemNames
	to    *space.System
}

// Scan implements sql.Scanner.
func (s systemName) Scan(v any) error {
	name, ok := v.(string)
	if !ok {
		return fmt.Errorf("a network's name is %T", v)
	}
	system, ok := s.known[name]
	if !ok {
		var err error
		if system, err = space.ParseSystem(name); err != nil {
			return err
		}
		s.known[name] = system
	}
	*s.to = system
	return nil
}
