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

// epochColumn is a column of table epoch: its name, and its value in a search.Epoch, to be read or written. Value
// returns no error.
type epochColumn struct {
	name  string
	time  bool // as in search.EpochValue
	value interface {
		sql.Scanner
		driver.Valuer
	}
}

// epochColumns are the columns of table epoch that hold what was measured: the values of search.Epoch by their names
// there. Every query of epochs is made from this list. An optional value that was not recorded is NULL.
func epochColumns(e *search.Epoch) []epochColumn {
	var list []epochColumn
	for _, v := range e.Values() {
		c := epochColumn{name: v.Name, time: v.Time}
		switch at := v.At.(type) {
		case *int:
			c.value = (*whole)(at)
		case *float64:
			switch {
			case v.Name == "train_loss":
				c.value = (*orNaN)(at)
			case v.Optional:
				c.value = (*orZero)(at)
			default:
				c.value = (*real)(at)
			}
		}
		list = append(list, c)
	}
	return list
}

// epochNames lists the names of epochColumns for SQL, each after a prefix such as "e.".
func epochNames(prefix string) string {
	var names []string
	for _, c := range epochColumns(new(search.Epoch)) {
		names = append(names, prefix+c.name)
	}
	return strings.Join(names, ", ")
}

// epochFields returns the targets for Rows.Scan: those in before, then one for each column of epochNames.
func epochFields(e *search.Epoch, before ...any) []any {
	for _, c := range epochColumns(e) {
		before = append(before, c.value)
	}
	return before
}

// identical reports whether two measurements of an epoch are the same, times too.
func identical(a, b search.Epoch) bool {
	if math.IsNaN(a.TrainLoss) && math.IsNaN(b.TrainLoss) {
		a.TrainLoss, b.TrainLoss = 0, 0
	}
	return a == b
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

// Scan implements sql.Scanner. NULL, which an outer join gives, changes nothing.
func (s systemName) Scan(v any) error {
	if v == nil {
		return nil
	}
	name, ok := v.(string)
	if !ok {
		return fmt.Errorf("a network's name is %T", v)
	}
	system, ok := s.known[name]
	if !ok {
		var err error
		if system, err = space.ParseSystem(name); err != nil {
			return contradiction(brief(err.Error()))
		}
		s.known[name] = system
	}
	*s.to = system
	return nil
}
