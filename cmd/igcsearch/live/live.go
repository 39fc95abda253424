// Package live shows the studies of a database as a web page that follows them.
//
// The page is made on the server. A browser keeps one stream of server-sent
// events open; it hears from it that the numbers changed, asks for the same page
// again and puts in what differs. Without its script the page is whole, and the
// browser loads it anew from time to time.
//
// However many watch, the database is asked at most once a second whether
// anything changed, and read only if so: all pages are made of one State. While
// nobody watches, nobody asks.
package live

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Source is where the numbers come from. It is called by one goroutine at a
// time, but for Export and Snapshot.
type Source interface {
	// Mark is another one whenever what Read returns may have changed, but for
	// processes that are no more.
	Mark(context.Context) (string, error)
	// Read returns the studies, those first that people want to see first. The
	// same numbers give the same State.
	Read(context.Context) (State, error)
	// Export writes the results of a study that Read returned as CSV, at the
	// last epoch of its trials or at all of them.
	Export(ctx context.Context, w io.Writer, study string, epochs bool) error
	// Snapshot writes a consistent copy of the database to a new file.
	Snapshot(ctx context.Context, path string) error
}

// State is what a database holds, in words.
type State struct {
	Database string // its name, for people
	// Missing says that there is no database yet, and how one comes to be.
	Missing string
	Studies []Study
}

// Study is one study as the page shows it. A text that is empty is left out.
type Study struct {
	Name, Title string
	Dataset     string
	Status      string // "running", "done", "stopped" or "waiting"
	Updated     time.Time
	Done        int // trials that have their result
	Trials      int
	Counts      string  // trials by status: "3 done, 2 running"
	Share       float64 // 0 … 1 of the work, by multiply–adds and epochs
	Left        string  // "1h05m"
	Ready       time.Time
	Speed       string // pictures per second of all that run
	Hours       []Hours
	Warnings    []string

	Caption  string   // what the accuracies are
	Split    string   // that they are of: "test" or "validation"
	Head     []Column // of what tells the networks apart
	Networks []Network
	Running  []Running
	Failures []Failure
	Figures  []Figure
}

// Column heads a column.
type Column struct {
	Name string
	Text bool // it has words, not numbers
}

// Hours is the time that was spent on a kind of device.
type Hours struct{ Amount, Of string }

// Network is a row: one network with its trials.
type Network struct {
	Which    []string // by Head
	Accuracy string   // mean ± standard deviation
	N        string
	Trials   []Trial
}

// Trial is a cell.
type Trial struct {
	Seed          int
	Status        string
	Accuracy      string // of a trial that is done
	Epoch, Epochs int
}

// Running is a trial that a worker has.
type Running struct {
	Network       string
	Seed          int
	Epoch, Epochs int
	// Of the last epoch, on the training pictures and on those of Study.Split.
	TrainLoss, TrainAccuracy string
	Loss, Accuracy           string
	Speed                    string // pictures per second
	Worker                   string // host and process, or the scheduler's job
	Device                   string
	Since                    time.Time
}

// Failure is an attempt that did not end well.
type Failure struct {
	Network string
	Seed    int
	Outcome string
	At      time.Time
	Worker  string
	Lines   string // the last of its message
	Now     string // status of the trial
}

// Figure is one that can be drawn.
type Figure struct {
	Name, Title string
	// Numbers is what is drawn: the same numbers are the same picture.
	Numbers string
	Note    string
	// Draw writes it in a format of plots. with outlines for the page, which gets it often.
	Draw func(w io.Writer, format string, outlines bool) error
}

// Percent is Share in whole percent; 100 is kept for what is done.
func (s Study) Percent() int {
	if p := int(100 * s.Share); p < 100 || s.Status == "done" {
		return p
	}
	return 99
}

// Fact is the study in a few words, for the window's title.
func (s Study) Fact() string { return fmt.Sprintf("%d %% %s", s.Percent(), s.Name) }

func (s Study) figure(name string) (Figure, bool) {
	for _, f := range s.Figures {
		if f.Name == name {
			return f, true
		}
	}
	return Figure{}, false
}

func (s State) study(name string) (Study, bool) {
	for _, study := range s.Studies {
		if study.Name == name {
			return study, true
		}
	}
	return Study{}, false
}
