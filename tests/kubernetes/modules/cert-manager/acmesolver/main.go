// Answers one http-01 challenge, as the pod that cert-manager makes for it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"

	"github.com/cert-manager/cert-manager/pkg/issuer/acme/http/solver"
)

func main() {
	one := &solver.HTTP01Solver{}
	flag.IntVar(&one.ListenPort, "listen-port", 8089, "port")
	flag.StringVar(&one.Domain, "domain", "", "name that is validated")
	flag.StringVar(&one.Token, "token", "", "token of the challenge")
	flag.StringVar(&one.Key, "key", "", "key authorization")
	flag.Parse()

	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go func() {
		<-stopped.Done()
		os.Exit(0)
	}()
	if err := one.Listen(logr.Discard()); err != nil && !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(os.Stderr, "acmesolver:", err)
		os.Exit(1)
	}
}
