// Package live shows the studies of a database as a web page that follows them.
//
// The server makes the page. A browser keeps one stream of server-sent events
// open. When an event says that the numbers changed, the browser asks for the
// same page again and replaces what differs. Without its script the page is
// complete too, and the browser loads it anew from time to time.
//
// All pages are made of one State. The database is asked at most once a second
// whether anything changed, however many browsers watch, and read only if
// something did. While nobody watches, it is not asked.
package live

import (
	"context"
	"fmt"
	"io"
	"time"
)

// Source is where the numbers come from. Only Export and Snapshot are called by
// several goroutines at once.
type Source interface {
	// Mark returns a text that changes whenever what Read returns may have
	// changed. It need not notice that a process has ended.
	Mark(context.Context) (string, error)
	// Read returns the studies, the most interesting first. The same numbers
	// give the same State.
	Read(context.Context) (State, error)
	// Export writes the results of a study that Read returned as CSV, at the
	// last epoch of its trials or at all of them.
	Export(ctx context.Context, w io.Writer, study string, epochs bool) error
	// Snapshot writes a consistent copy of the database to a new file.
	Snapshot(ctx context.Context, path string) error
}

// State is what a database contains, in words.
type State struct {
	Database string // its name
	// Missing says that there is no database yet, and how to make one.
	Missing string
	Studies []Study
}

// Study is one study as the page shows it. Empty texts are left out.
type Study struct {
	Name, Title string
	Dataset     string
	Status      string // "running", "done", "stopped" or "waiting"
	Updated     time.Time
	Done        int     // trials that have their result
	Trials      int     // all trials
	Counts      string  // trials by status: "3 done, 2 running"
	Saved       string  // what the strategy saves: "22 of 60 trainings were not needed"
	Share       float64 // 0 … 1 of the work, by multiply–adds and epochs
	Left        string  // "1h05m"
	Ready       time.Time
	Speed       string // pictures per second of all running trials
	Hours       []Hours
	Warnings    []string

	Caption  string   // what the accuracies are
	Split    string   // the pictures that they are of: "test" or "validation"
	Head     []Column // of the columns that tell the networks apart
	Networks []Network
	Model    string // what gave their Best; "" if too little is known
	Running  []Running
	Failures []Failure
	// Interruptions are no failures: others take the trials up again, and the results are the same.
	Interruptions []Failure
	Figures       []Figure
}

// Column heads a column.
type Column struct {
	Name string
	Text bool // it contains words, not numbers
}

// Hours is the time that was spent on a kind of device.
type Hours struct{ Amount, Of string }

// Network is one network with its trials, a row of the table.
type Network struct {
	Which    []string // what it is, by the columns of Head
	Accuracy string   // mean ± standard deviation
	N        string
	Best     string // the probability that it is the best, "51 %"
	Trials   []Trial
}

// Trial is one trial in the row of its network.
type Trial struct {
	Seed          int
	Status        string
	Accuracy      string // of a trial that is done
	Epoch, Epochs int
}

// Running is a trial that a worker trains.
type Running struct {
	Network       string
	Seed          int
	Epoch, Epochs int
	// These are of the last epoch, on the training pictures and on those of Study.Split.
	TrainLoss, TrainAccuracy string
	Loss, Accuracy           string
	Speed                    string // pictures per second
	Worker                   string // host and process, or the scheduler's job
	Device                   string
	Since                    time.Time
}

// Failure is an attempt that ended before its epoch.
type Failure struct {
	Network string
	Seed    int
	Outcome string
	At      time.Time
	Worker  string
	Lines   string // the last lines of its message
	Now     string // the present status of its trial
}

// Figure is a figure that can be drawn.
type Figure struct {
	Name, Title string
	// Numbers is what it shows. The same numbers give the same figure.
	Numbers string
	Note    string
	// Draw writes it in a format of package plots. With outlines, an SVG contains no
	// font and is smaller, for the page, which loads it often.
	Draw func(w io.Writer, format string, outlines bool) error
}

// Percent returns Share in whole percent. It is 100 only if the study is done.
func (s Study) Percent() int {
	if p := int(100 * s.Share); p < 100 || s.Status == "done" {
		return p
	}
	return 99
}

// Fact describes the study in a few words, for the window's title.
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
