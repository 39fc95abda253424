package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"igcsearch/cmd/igcsearch/live"
)

type serveOptions struct {
	db     string
	listen string
}

func newServeCommand() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Show the studies of a database as a web page that follows them",
		Long: `serve shows how the studies of a database go on, in a browser: progress and time
left, accuracy against M, learning curves, what runs where, failures, hours used,
and downloads. It prints the address of the page and serves until it is
interrupted. The page only reads: it can be opened before a study starts, and
stays when it has ended.

Without --listen only this machine can open the page. To open it elsewhere,
forward the port: ssh -L 8080:ADDRESS MACHINE. Whoever can reach the address can
read the results.`,
		Example: `  igcsearch serve

  # an address that stays the same
  igcsearch serve --db igcsearch.db --listen 127.0.0.1:8080`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runServe(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	addDB(cmd, &o.db)
	cmd.Flags().StringVar(&o.listen, "listen", "127.0.0.1:0", "the `ADDRESS` to listen on, HOST:PORT; port 0 is a free one")
	return cmd
}

func runServe(ctx context.Context, o serveOptions, stdout io.Writer) error {
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return usageError{fmt.Errorf("--listen %q: want HOST:PORT, like 127.0.0.1:8080", o.listen)}
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("serve: %w: give another --listen", err)
	}
	mux := http.NewServeMux()
	live.New(&watched{path: o.db}).Register(mux)
	server := &http.Server{
		Handler: mux,
		// No limit for a whole request or answer: events go on for hours.
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 1 << 16,
		// The streams of events end with ctx; Shutdown would wait for them.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan error, 1)
	defer context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		err := server.Shutdown(wait)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close() // a download that takes its time
		}
		stopped <- err
	})()
	if _, err := fmt.Fprintf(stdout, "http://%s/\n", listener.Addr()); err != nil {
		listener.Close()
		return err
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	if err := <-stopped; err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	return ctx.Err()
}
