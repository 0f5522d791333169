// Worker processes: what goes to and fro, and every way in which one can end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include "lab/peers/worker.h"

namespace headwise::lab {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

std::unique_ptr<Worker> shell(const std::string& script) {
  Result<std::unique_ptr<Worker>> worker =
      Worker::start({.program = "/bin/sh", .arguments = {"-c", script}, .environment = {{"SAID", "yes"}}});
  EXPECT_TRUE(worker.ok()) << worker.status().message();
  return *std::move(worker);
}

Worker::Clock::time_point in(milliseconds time) { return Worker::Clock::now() + time; }

TEST(PeerWorker, SpeaksLineByLine) {
  const std::unique_ptr<Worker> worker = shell("while read line; do echo \"$SAID $line\"; done");
  for (const std::string word : {"one", "two", "three"}) {
    ASSERT_TRUE(worker->send(word).ok());
    Result<std::string> line = worker->receive(in(milliseconds(5000)));
    ASSERT_TRUE(line.ok()) << line.status().message();
    EXPECT_EQ(*line, "yes " + word);
  }
}

TEST(PeerWorker, SeveralLinesAtOnceAreKept) {
  const std::unique_ptr<Worker> worker = shell("printf 'a\\nb\\nc'; sleep 0.05; printf 'd\\n'; sleep 5");
  for (const std::string word : {"a", "b", "cd"}) {
    Result<std::string> line = worker->receive(in(milliseconds(5000)));
    ASSERT_TRUE(line.ok());
    EXPECT_EQ(*line, word);
  }
}

TEST(PeerWorker, AStalledOneIsLate) {
  const std::unique_ptr<Worker> worker = shell("sleep 60");
  const auto start = Worker::Clock::now();
  EXPECT_FALSE(worker->receive(in(milliseconds(50))).ok());
  EXPECT_EQ(worker->failure(), WorkerFailure::late);
  worker->kill();
  EXPECT_THAT(worker->how_it_ended(), HasSubstr("signal 9"));
  EXPECT_LT(Worker::Clock::now() - start, std::chrono::seconds(5));
}

TEST(PeerWorker, HowItEndedAndWhatItWroteLast) {
  const std::unique_ptr<Worker> exits = shell("echo 'went\n\nwrong' >&2; exit 3");
  EXPECT_FALSE(exits->receive(in(milliseconds(5000))).ok());
  EXPECT_EQ(exits->failure(), WorkerFailure::ended);
  EXPECT_EQ(exits->how_it_ended(), "ended with exit code 3");
  EXPECT_THAT(exits->last_words(), HasSubstr("wrong"));
  EXPECT_EQ(exits->last_words().find('\n'), std::string::npos);

  const std::unique_ptr<Worker> dies = shell("kill -SEGV $$");
  EXPECT_FALSE(dies->receive(in(milliseconds(5000))).ok());
  EXPECT_THAT(dies->how_it_ended(), HasSubstr("signal 11"));
  EXPECT_EQ(dies->last_words(), "");
}

TEST(PeerWorker, LastWordsAreTheEndAndPlainText) {
  const std::unique_ptr<Worker> worker =
      shell("i=0; while [ $i -lt 500 ]; do printf 'caf\\303\\251 '; i=$((i+1)); done >&2; printf end >&2");
  EXPECT_FALSE(worker->receive(in(milliseconds(5000))).ok());
  const std::string words = worker->last_words();
  EXPECT_LT(words.size(), 500U);
  EXPECT_THAT(words, testing::StartsWith("..."));
  EXPECT_THAT(words, testing::EndsWith("end"));
  for (const char c : words) EXPECT_TRUE(c >= 0x20 && c < 0x7f);
}

TEST(PeerWorker, WritingToADeadOneIsAnErrorAndNoSignal) {
  const std::unique_ptr<Worker> worker = shell("exit 0");
  EXPECT_FALSE(worker->receive(in(milliseconds(5000))).ok());
  const std::string big(1 << 16, 'x');
  Status status;
  for (int i = 0; i < 100 && status.ok(); ++i) status = worker->send(big);
  EXPECT_FALSE(status.ok());
}

TEST(PeerWorker, ALineWithoutAnEndIsRefused) {
  const std::unique_ptr<Worker> worker =
      shell("while :; do printf '0123456789012345678901234567890123456789'; done");
  EXPECT_FALSE(worker->receive(in(milliseconds(20000))).ok());
  EXPECT_EQ(worker->failure(), WorkerFailure::unreadable);
}

TEST(PeerWorker, WhatADeadOneStartedEndsToo) {
  const std::string file = testing::TempDir() + "headwise_orphan_" + std::to_string(getpid());
  std::remove(file.c_str());
  {
    // The child holds no end of the pipes, so that the worker's end is seen at once.
    const std::unique_ptr<Worker> worker =
        shell("(while :; do echo x >> " + file +
              "; sleep 0.005; done) >/dev/null </dev/null & sleep 0.1; kill -SEGV $$");
    EXPECT_FALSE(worker->receive(in(milliseconds(5000))).ok());
    EXPECT_THAT(worker->how_it_ended(), HasSubstr("signal 11"));
  }
  std::this_thread::sleep_for(milliseconds(50));
  const auto size = [&] { return std::ifstream(file, std::ios::ate).tellg(); };
  const std::streamoff after = size();
  EXPECT_GT(after, 0);
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_EQ(size(), after);
  std::remove(file.c_str());
}

TEST(PeerWorker, WhereTheSystemReapsAnEndIsStillSeen) {
  const auto before = std::signal(SIGCHLD, SIG_IGN);
  {
    const std::unique_ptr<Worker> worker = shell("exit 3");
    EXPECT_FALSE(worker->receive(in(milliseconds(5000))).ok());
    EXPECT_THAT(worker->how_it_ended(), HasSubstr("ended"));
    const auto start = Worker::Clock::now();
    worker->kill();
    EXPECT_LT(Worker::Clock::now() - start, std::chrono::seconds(1));
  }
  std::signal(SIGCHLD, before);
}

TEST(PeerWorker, APausedOneStandsStillWithAllItStarted) {
  const std::string file = testing::TempDir() + "headwise_worker_" + std::to_string(getpid());
  std::remove(file.c_str());
  // A child of the worker writes: the whole group has to stand still.
  const std::unique_ptr<Worker> worker =
      shell("(while :; do echo x >> " + file + "; sleep 0.005; done) & echo started; wait");
  ASSERT_TRUE(worker->receive(in(milliseconds(5000))).ok());
  const auto size = [&] { return std::ifstream(file, std::ios::ate).tellg(); };
  const auto grows = [&](std::streamoff from, milliseconds limit) {
    const auto end = Worker::Clock::now() + limit;
    while (size() <= from && Worker::Clock::now() < end) std::this_thread::sleep_for(milliseconds(5));
    return size() > from;
  };
  EXPECT_TRUE(grows(0, milliseconds(5000)));
  worker->pause();
  std::this_thread::sleep_for(milliseconds(50));  // what was written before arrives
  const std::streamoff paused = size();
  EXPECT_FALSE(grows(paused, milliseconds(200)));
  worker->resume();
  EXPECT_TRUE(grows(paused, milliseconds(5000)));
  worker->pause();
  worker->kill();  // a stopped group can be killed
  EXPECT_THAT(worker->how_it_ended(), HasSubstr("signal 9"));
  std::this_thread::sleep_for(milliseconds(50));
  const std::streamoff killed = size();
  EXPECT_FALSE(grows(killed, milliseconds(200)));
  std::remove(file.c_str());
}

TEST(PeerWorker, AProgramThatIsNotThereSaysSo) {
  Result<std::unique_ptr<Worker>> worker = Worker::start({.program = "/no/such/program", .arguments = {}});
  ASSERT_TRUE(worker.ok());
  EXPECT_FALSE((*worker)->receive(in(milliseconds(5000))).ok());
  EXPECT_EQ((*worker)->how_it_ended(), "ended with exit code 127");
  EXPECT_EQ((*worker)->last_words(), "cannot be executed");
}

}  // namespace
}  // namespace headwise::lab
