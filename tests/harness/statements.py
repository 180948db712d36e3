"""The statements of the table of poisons and statements: which story (stories.py) brings a poisoned job to each, and what is to
become of it there. A family of poisons that a statement does not name is left out, for the reason in LEFT_OUT."""

import random
import re
from dataclasses import dataclass, field

from .arena import Outcome
from .poisons import POISONS
from .stories import (answers, ask_to_cancel, audit, beside, cancel_again, claim, command, content, cron, declare, drain, expire,
                      partitions, progress, prune, register, rescue, settle, stage, strays, sweep, undeclare)


@dataclass
class Statement:
    name: str
    story: object               # story(cell): brings the job there, and waits for what comes of it
    outcomes: dict              # family: Outcome, or several that will do
    queue: str = "same"
    others: dict = field(default_factory=dict)  # poison: Outcome, where one is not as its family
    most: int = 100             # poisoned jobs at once
    short: tuple = ()           # poisons that the short form tries by themselves; EACH: the first of each family
    patient: bool = False       # a command, which waits for a lock for as long as it may

    def outcomes_of(self, poison):
        """Those that will do; () where the pair is left out."""
        found = self.others.get(poison.name) or self.outcomes.get(poison.family) or ()
        if poison.family == "nothing" and not found:
            found = self.outcomes.get("lock", ())
        return (found,) if isinstance(found, Outcome) else found

    def takes(self, poison):
        return bool(self.outcomes_of(poison))


    def together(self):
        """Those that are tried at once in the short form: no two locks on a table, and none for which all have to wait."""
        some = [poison for poison in POISONS.values() if self.takes(poison) and not poison.long
                and not poison.family.endswith("-slow") and not (self.patient and poison.locks)]
        return [some[n:n + self.most] for n in range(0, len(some), self.most)] if self.most > 1 else []

    def singly(self):
        """Those that it tries by themselves, too: what is left out there, or one of each family."""
        takes = [poison for poison in POISONS.values() if self.takes(poison) and not poison.long]
        if self.short is not EACH:
            return [poison for poison in takes if poison.name in self.short]
        firsts = {poison.family: poison for poison in reversed(takes)}
        return [poison for poison in takes if firsts[poison.family] is poison]


EACH = ("each",)


def done(*states, starts=1):
    """It ends, as if nothing had been."""
    return Outcome(states, starts, named=False)


def kept(*states, starts=1):
    return Outcome(states, starts)


# ---- the table's columns ----

LARGE = '{"pad": "%s"}' % random.Random(1).randbytes(6000).hex()
DISCARD = {"do": "discard", "value": '"as told"'}
ENDS = (done("completed"), done("discarded", "cancelled", starts=0), kept("available", "suspended", starts=0))
ANSWERED = (kept("completed"), done("retryable", "discarded", "cancelled", "scheduled"))
READ = {"lock": done("scheduled", starts=0), "nothing": done("scheduled", starts=0), "update": done("scheduled", starts=0)}
READABLE = done("scheduled", "available", starts=0)


def ended(state):
    """A job that waits is ended by a command; of one whose end is refused the command says why."""
    end, stay = done(state, starts=0), kept("scheduled", starts=0)
    locked = (done("scheduled", starts=0), end)
    refused = {"delete": stay, "delete-mute": stay, "delete-harmless": end, "nothing": end, "lock": locked, "lock-weak": locked}
    return {**refused, "history": stay} if state else refused


def woken(state):
    end, stay = done("available", starts=0), kept(state, starts=0)
    return {"update": stay, "update-mute": stay, "nothing": end, "lock": (done(state, starts=0), end)}


def back(state):
    end, stay = done("available", starts=0), kept(state, starts=0)
    return {"insert": stay, "past": stay, "past-mute": stay, "nothing": end}


def gone(state):
    end, stay = done(None, starts=0), kept(state, starts=0)
    return {"past": stay, "past-mute": stay, "nothing": end}


PARKED = kept("suspended", "executing")  # done, and its end cannot be written: it is not run again

STATEMENTS = {statement.name: statement for statement in [
    Statement("claim", claim, {
        "update": kept("available", starts=0), "update-mute": kept("available", starts=0), "update-slow": done("completed"),
        "lock": done("completed"), "lock-weak": done("completed"), "wait": done("completed")},
        others={"lock-delete": done("completed", starts=1)}, short=EACH),
    Statement("claim-aged", claim, {
        "update": kept("available", starts=0), "update-mute": kept("available", starts=0), "lock": done("completed")},
        queue="aged"),
    Statement("ack", settle(("plain",)), {
        "delete": PARKED, "delete-mute": PARKED, "delete-slow": done("completed"), "delete-harmless": done("completed"),
        "history": PARKED, "history-mute": done("completed", None), "wait": done("completed"), "lock": done("completed"),
        "lock-weak": done("completed")}, short=EACH),
    Statement("ack-drop", settle(("plain",), expect={"state": None}), {
        "delete": PARKED, "delete-mute": PARKED, "delete-harmless": done(None), "lock": done(None), "lock-weak": done(None)},
        queue="none"),
    Statement("ack-exec", settle(("plain",)), {
        "delete": PARKED, "delete-mute": PARKED, "history": PARKED, "lock": done("completed"), "lock-weak": done("completed")},
        queue="exec"),
    Statement("settle-result", settle(args={"do": "ok", "value": LARGE}), {
        "delete": PARKED, "delete-mute": PARKED, "delete-harmless": done("completed"), "history": PARKED,
        "history-mute": done("completed", None), "result": kept("completed"), "lock": done("completed"),
        "lock-weak": done("completed")}, short=("fk", "result-check", "lock-update")),
    Statement("settle-fail", settle(args={"do": "error", "ms": 3600000}), {
        "update": kept("executing", "suspended"), "update-mute": kept("executing", "suspended"),
        "update-slow": done("retryable"), "entry": kept("retryable"), "wait": done("retryable"), "lock": done("retryable"),
        "lock-weak": done("retryable")},
        others={"lock-delete": done("retryable")}, short=EACH),
    Statement("settle-snooze", settle(args={"do": "snooze", "ms": 3600000}), {
        "update": kept("executing", "suspended"), "update-mute": kept("executing", "suspended"), "lock": done("scheduled"),
        "lock-weak": done("scheduled")}),
    Statement("settle-discard", settle(args=DISCARD), {
        "delete": PARKED, "delete-mute": PARKED, "delete-harmless": done("discarded"), "history": PARKED,
        "history-mute": done("discarded", None), "entry": kept("discarded"), "lock": done("discarded"),
        "lock-weak": done("discarded")}),
    Statement("settle-last", settle(args={"do": "error"}, more=lambda victim: {"max_attempts": 1}), {
        "delete": PARKED, "delete-mute": PARKED, "history": PARKED, "entry": kept("discarded"), "lock": done("discarded")}),
    Statement("settle-crash", settle(("plain",), args={"do": "crash"}), {
        "update": kept("executing", "suspended"), "update-mute": kept("executing", "suspended"), "entry": kept("retryable"),
        "lock": done("retryable")}, queue="single", most=1,
        short=("update-before", "entry-check", "lock-update")),
    Statement("content", content, {"content": ENDS, "errors": done("completed", starts=2), "nothing": done("completed")}),
    Statement("content-crash", settle(("plain",), args={"do": "crash", "times": 9}), {
        "errors": done("retryable"), "nothing": done("retryable")}, queue="single", most=1, short=("errors-object",)),
    Statement("answer", answers, {"answer": ANSWERED, "nothing": done("completed")}, queue="single", others={
        "answer-3-mb": done("completed"), "answer-long-key": done("completed")}, most=6),
    Statement("beside", beside, {"beside": done(None, starts=0), "nothing": done(None, starts=0)}, most=1, short=(
        "lock-jobs-x", "lock-nodes-ax", "lock-idle-x", "lock-progress-ax", "lock-own-row", "refused-idle-insert",
        "node-renewed-infinity", "node-renewed-year-294276", "node-queues-odd")),
    Statement("progress", progress, {"progress": kept("completed"), "nothing": done("completed")}, others={
        "progress-lock": done("completed")}),
    Statement("sweep", sweep, {"sweep": kept("completed"), "nothing": done("completed")}),
    Statement("cancel-again", cancel_again, {
        "delete": kept("scheduled", "suspended", starts=0), "delete-mute": kept("scheduled", "suspended", starts=0),
        "history": kept("scheduled", "suspended", starts=0), "history-mute": done("cancelled", None, starts=0),
        "cancels": kept("scheduled", "cancelled", starts=0), "wait": done("cancelled", starts=0),
        "lock": done("cancelled", starts=0), "lock-weak": done("cancelled", starts=0)}),
    Statement("cron", cron, {"cron": done(None, starts=0), "nothing": done(None, starts=0)}),
    Statement("cron-declare", declare, {"declare": done(None, starts=0), "nothing": done(None, starts=0)}),
    Statement("cron-undeclare", undeclare, {"undeclare": done(None, starts=0), "nothing": done(None, starts=0)}),
    Statement("prune", prune, {"past": kept("completed", starts=0), "past-mute": kept("completed", starts=0),
                               "nothing": done(None, starts=0)}, queue="brief", others={"past-lock": done(None, starts=0)}),
    Statement("partitions", partitions, {"partition": done(None, starts=0)}),
    Statement("strays", strays, {"stray": kept("executing", starts=0), "nothing": done("completed")}),
    *(Statement(name, command(*words, becomes=becomes, history=history), outcomes, queue="shelf", patient=True,
                others={"past-lock": done("discarded", starts=0)} if history else {},  # an error after 10 s, nothing is changed
                short=("lock-update",) if name == "cancel" else ())
      for name, words, becomes, history, outcomes in (
          ("job", ["job", "{id}"], "scheduled", False, {**READ, "content": READABLE, "errors": READABLE}),
          ("jobs", ["jobs", "--queue", "{queue}"], "scheduled", False, {**READ, "content": READABLE, "errors": READABLE}),
          ("queues", ["queues"], "scheduled", False, READ),
          ("doctor", ["doctor"], "scheduled", False, READ),
          ("cancel", ["cancel", "{id}"], "cancelled", False, ended("cancelled")),
          ("cancel-many", ["cancel", "--queue", "{queue}"], "cancelled", False, ended("cancelled")),
          ("delete", ["delete", "{id}"], None, False, ended(None)),
          ("delete-many", ["delete", "--queue", "{queue}", "--yes"], None, False, ended(None)),
          ("purge", ["purge", "--args", '{{"shelf": 1}}', "--yes"], None, False, ended(None)),
          ("retry", ["retry", "{id}"], "available", False, woken("scheduled")),
          ("retry-many", ["retry", "--queue", "{queue}", "--state", "scheduled"], "available", False, woken("scheduled")),
          ("retry-ended", ["retry", "{id}"], "available", True, back("discarded")),
          ("retry-many-ended", ["retry", "--queue", "{queue}"], "available", True, back("discarded")),
          ("delete-ended", ["delete", "{id}"], None, True, gone("discarded")),
          ("delete-many-ended", ["delete", "--queue", "{queue}", "--yes"], None, True, gone("discarded")))),
    Statement("settle-cancel", ask_to_cancel, {
        "delete": PARKED, "delete-mute": PARKED, "history": PARKED, "cancels": kept("cancelled", "suspended", "executing"),
        "entry": kept("cancelled"), "lock": done("cancelled"), "lock-weak": done("cancelled")}),
    Statement("audit", audit, {
        "update": kept("executing", "suspended", starts=0), "update-mute": kept("executing", "suspended", starts=0),
        "lock": done("completed")}),
    Statement("stage", stage, {
        "update": kept("scheduled", starts=0), "update-mute": kept("scheduled", starts=0), "update-slow": done("completed"),
        "wait": done("completed"), "lock": done("completed"), "lock-weak": done("completed")}, short=EACH),
    Statement("expire", expire, {
        "delete": kept("scheduled", "suspended", starts=0), "delete-mute": kept("scheduled", "suspended", starts=0),
        "delete-slow": done("cancelled", starts=0), "delete-harmless": done("cancelled", starts=0),
        "history": kept("scheduled", "suspended", starts=0),
        "history-mute": (done("cancelled", None, starts=0), kept("scheduled", starts=0)),
        "entry": kept("scheduled", "suspended", "cancelled", starts=0), "errors": done("cancelled", starts=0),
        "wait": done("cancelled", starts=0), "lock": done("cancelled", starts=0), "lock-weak": done("cancelled", starts=0)},
        short=EACH),
    Statement("rescue", rescue(), {
        "update": kept("executing", "suspended", starts=0), "update-mute": kept("executing", "suspended", starts=0),
        "update-slow": done("completed"), "entry": (kept("completed"), kept("suspended", starts=0)),
        "node": done("completed"), "errors": done("completed"), "wait": done("completed"),
        "lock": done("completed"), "lock-weak": done("completed"), "lock-node": done("completed")}, short=EACH),
    Statement("rescue-discard", rescue(attempt=20), {
        "delete": kept("executing", "suspended", starts=0), "delete-mute": kept("executing", "suspended", starts=0),
        "history": kept("executing", "suspended", starts=0), "entry": kept("discarded", "suspended", starts=0),
        "errors": done("discarded", starts=0), "wait": done("discarded", starts=0), "lock": done("discarded", starts=0),
        "lock-weak": done("discarded", starts=0)}),
    Statement("rescue-cancel", rescue(cancel=True), {
        "delete": kept("executing", "suspended", starts=0), "history": kept("executing", "suspended", starts=0),
        "cancels": kept("executing", "suspended", "cancelled", starts=0), "lock": done("cancelled", starts=0)}),
    Statement("register", register, {
        "update": kept("executing", "suspended"), "update-mute": kept("executing", "suspended"),
        "lock": done("completed", starts=2),
        "lock-weak": done("completed", starts=2), "node": done("completed", starts=2)}),
    Statement("drain", drain, {
        "update": kept("executing", "suspended"), "update-mute": kept("executing", "suspended"),
        "lock": done("completed", starts=2)}),
]}

# ---- the pairs that are left out ----

LEFT_OUT = [  # statements, families, why
    ("claim|claim-aged", "delete|history|insert|entry|result|cancels", "a claim writes only the job's row, by an UPDATE"),
    ("ack|ack-drop|ack-exec|settle-(result|discard|last|cancel)|expire|rescue-(discard|cancel)|cancel-again", "update",
     "it deletes the row: no UPDATE is left to refuse"),
    ("settle-(fail|snooze|crash)|audit|stage|rescue|register|drain", "delete|history", "it leaves the row where it is"),
    ("ack-drop", "history", "nothing is kept"),
    ("(cancel|delete)(-many)?|purge", "update", "it deletes the row: no UPDATE is left to refuse"),
    ("delete|delete-many|purge", "history", "nothing is kept"),
    ("retry|retry-many", "delete|history", "it leaves the row where it is"),
    ("(retry|delete)(-many)?-ended", "update|delete|history|lock|lock-weak", "the row is in the history"),
    ("delete(-many)?-ended", "insert", "the row is in the history"),
    ("jobs?|queues|doctor", ".*", "it writes nothing"),
    ("content|content-crash|answer|beside|progress|sweep|cron|cron-(un)?declare|prune|partitions|strays",
     "update|delete|insert|history|entry|result|cancels|node|lock|lock-weak|lock-node", "tried with what brings the job there"),
    (".*", "insert", "no job's row is inserted"),
    (".*", "entry", "it writes no entry, or as its neighbour in the table does"),
    (".*", "result", "it writes no result"),
    (".*", "cancels", "no request to cancel the job is there"),
    (".*", "node|lock-node|stray", "no node dies, or as with rescue"),
    (".*", "content", "what the row holds is looked at by a claim, and shown; elsewhere it is carried along"),
    (".*", "errors", "nothing is added to errors, or as its neighbour in the table does"),
    (".*", "answer", "no worker answers"),
    (".*", "beside", "tried by itself: it is about no job"),
    (".*", "cron|declare|undeclare", "it reads and writes no cron"),
    (".*", "progress|sweep", "it writes no progress"),
    (".*", "past|partition", "nothing leaves the history"),
    (".*", "lock-weak", "as with lock"),
    (".*", "wait", "its neighbour in the table waits for the same lock, or nothing of the job's row is written"),
    (".*", ".*-(slow|mute|harmless)", "as its neighbour in the table"),
]


def left_out(statement, family):
    """Why; None: it is not."""
    return next((why for statements, families, why in LEFT_OUT
                 if re.fullmatch(statements, statement) and re.fullmatch(f"({families})(-mute|-slow|-harmless)?", family)), None)
