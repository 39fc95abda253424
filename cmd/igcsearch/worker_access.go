package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"igcsearch/cmd/igcsearch/report"
	"igcsearch/search"
	"igcsearch/store/fleet"
)

// runAccessWorker trains what a coordinator gives out.
func runAccessWorker(parent context.Context, o workerOptions, stderr io.Writer) error {
	if _, err := fleet.ReadAccess(o.access); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // no coordinator will come of it
	}
	log := &jobLog{out: stderr}
	d, err := openDevices(o.data, o.device, stderr)
	if err != nil {
		return err
	}
	ctx, soft, stop := handBack(parent, o.grace, log.note)
	defer stop()
	load := func(ctx context.Context, s search.Study) (string, error) {
		data, err := d.train.Load(ctx, s)
		if err != nil {
			return "", err
		}
		log.note(fmt.Sprintf("study %s on %s: %s", s.Name, report.DatasetLabel(s.Dataset), pictures(data)))
		return data.Sum, nil
	}
	client := fleet.NewClient(fleet.ClientOptions{
		Access: o.access, Program: fleetProgram(), Study: o.study, Attempt: d.attempt, Load: load, Outbox: o.outbox, Note: log.note,
	})
	log.note(fmt.Sprintf("worker on %s, process %d, %s, for the coordinator of %s", cmp.Or(d.attempt.Host, "an unknown host"), d.attempt.PID, cmp.Or(d.attempt.Job, "no scheduler"), o.access))

	workers := o.workers.n
	study, err := firstStudy(soft, client)
	if err == nil {
		var sum string
		if sum, err = load(ctx, study); err == nil {
			client.Loaded(study.Name, sum)
			if workers = cmp.Or(workers, study.Workers); o.workers.auto || workers == 0 {
				workers, err = d.train.Workers(ctx, study)
			}
		}
	}
	if err == nil {
		log.note(fmt.Sprintf("training on %s (%s), %s at once", d.attempt.Device, d.attempt.ISA, count(workers, "trial")))
		runner := search.Runner{Trainer: d.train, Workers: workers, Notify: log.event, Drain: soft.Done(), Deadline: o.deadline(ctx)}
		err = runner.Work(ctx, client)
	}
	if errors.Is(err, search.ErrOver) {
		err = nil
	}
	// Whatever happened, others shall have what this one leaves.
	wait, cancel := context.WithTimeout(context.Background(), min(o.grace, 30*time.Second))
	defer cancel()
	slow := time.AfterFunc(time.Second, func() {
		log.note(fmt.Sprintf("the coordinator does not answer; trying for %v to say good-bye; interrupt again to end at once", min(o.grace, 30*time.Second)))
	})
	defer slow.Stop()
	if left := client.Leave(wait); left != "" {
		then := "the coordinator takes it from there, if it sees the folder"
		if o.outbox != "" {
			then = "those epochs are trained again"
		}
		log.note(fmt.Sprintf("what could not be delivered is in %s; %s", left, then))
	}
	reason := client.Reason()
	if soft.Err() != nil && parent.Err() == nil { // SIGUSR1
		reason = cmp.Or(reason, "its trials are given back")
		if errors.Is(err, context.Canceled) {
			err = nil
		}
	}
	if err == nil {
		log.note(fmt.Sprintf("%s done here, %s in all; %s", count(log.done, "trial"), count(log.epochs, "epoch"), cmp.Or(reason, "the end")))
	}
	return err
}

// firstStudy waits for a coordinator that has a study.
func firstStudy(ctx context.Context, client *fleet.Client) (search.Study, error) {
	for {
		studies, err := client.Join(ctx)
		if err != nil || len(studies) > 0 {
			return append(studies, search.Study{})[0], err
		}
		select {
		case <-ctx.Done():
			return search.Study{}, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

// fleetProgram tells programs apart whose results may differ.
func fleetProgram() string {
	b := build()
	if b.commit != "" && !strings.HasSuffix(b.commit, "-modified") {
		return b.version + " " + b.commit
	}
	program := b.version + " " + cmp.Or(b.commit, "of an unknown commit")
	// Then only the file itself tells.
	path, err := os.Executable()
	if err != nil {
		return program
	}
	f, err := os.Open(path)
	if err != nil {
		return program
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return program
	}
	return fmt.Sprintf("%s (%x)", program, sum.Sum(nil)[:6])
}

// jobLog writes what goes on as lines with the time, for the log of a job.
type jobLog struct {
	out          io.Writer
	done, epochs int
}

func (l *jobLog) note(line string) {
	fmt.Fprintf(l.out, "%s %s\n", time.Now().Format("2006-01-02 15:04:05"), line)
}

func (l *jobLog) event(e search.Event) {
	t := e.Trial
	at := fmt.Sprintf("%s %v", e.Study, t.Key)
	switch e.Kind {
	case search.Began:
		l.note(fmt.Sprintf("%s: begins after epoch %d of %d", at, t.Epoch, t.Epochs))
	case search.EpochStored:
		l.epochs++
		l.note(fmt.Sprintf("%s: epoch %d of %d, loss %.4f%s, %.1f s", at, t.Epoch, t.Epochs, t.Last.TrainLoss, scores(t.Last), t.Last.TrainSeconds+t.Last.EvalSeconds))
	case search.Ended:
		switch {
		case t.Status.Finished():
			l.done++
			l.note(fmt.Sprintf("%s: %s", at, t.Status))
		case t.Status == search.Pending && t.Error == "":
			l.note(fmt.Sprintf("%s: given back after epoch %d", at, t.Epoch))
		default:
			l.note(fmt.Sprintf("%s: %s: %s", at, t.Status, t.Error))
		}
	case search.Noted:
		if t.ID == 0 {
			l.note(e.Note)
		} else {
			l.note(at + ": " + e.Note)
		}
	}
}
