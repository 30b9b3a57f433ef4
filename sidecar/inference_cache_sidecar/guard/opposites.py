"""Opposites: words that turn an answer round. One group a line, its two sides parted by "/"; lemmas only.

Own compilation. `opposed` also knows prefixes ("lock", "unlock") and endings ("harmful", "harmless").
"""

from functools import lru_cache
from typing import Final

from inference_cache_sidecar.guard.lemma import lemma

_PAIRS: Final = """
able / unable
absent / present attend
accept approve / refuse reject decline deny
accelerate / decelerate slow brake
active / passive inactive dormant
add insert append / delete remove subtract
admit / deny
advance / retreat delay
advantage pro benefit / con disadvantage
agree / disagree
alive living / dead deceased
allow permit / forbid block deny prevent disallow disable
always / never sometimes rarely
ancient / modern
and / or
appear / disappear vanish
arrive arrival / leave depart departure
ascend ascending / descend descending
asleep / awake
assemble / disassemble dismantle
attach / detach
attack / defend
attract / repel
back rear / front
back backward backwards / forward forwards
beautiful / ugly
before / after
begin start launch open / end stop quit finish close
beginner novice / expert advanced
best good / bad worst
big / small
bind / unbind
birth born / death die
black dark / white light
bless / curse
block / unblock allow
bold / shy
boom / bust
borrow / lend loan
boy / girl
boyfriend / girlfriend
bottom / top
brave / coward cowardly
bring / take
broad wide / narrow
brother / sister
build create / destroy demolish
bull bullish / bear bearish
buy / sell sale
buyer / seller
calm / anxious angry
capture / release
cause / prevent cure
charge / discharge
cheap / expensive
clean / dirty
clear / vague cloudy
client / server
clockwise / counterclockwise anticlockwise
combine merge join / split separate divide
come / go
comfort / discomfort
compress zip / decompress unzip extract
connect / disconnect
consumer / producer
cool cold / hot warm
correct right / wrong incorrect false
countable / uncountable
create / delete destroy
credit / debit
cry / laugh
cure treat / cause
damp wet / dry
dangerous / safe
daughter / son
dawn / dusk
day / night
deep / shallow
defeat loss lose / win victory
demand / supply
deposit / withdraw withdrawal
desktop / mobile laptop
difficult / simple
direct / indirect
disappear / appear
domestic / foreign international
download / upload
drunk / sober
early / late
earn / spend
east eastern / west western
employed / unemployed
employee / employer
empty / full
encode / decode
encourage / discourage
encrypt / decrypt
enemy / friend
enter entry entrance / exit leave
entrance / exit
even / odd
exclude except without / include
expand / contract shrink collapse
expire / renew
explicit / implicit
export / import
exporter / importer
external exterior outer / internal interior inner
fail failure / succeed success pass
fake / real genuine authentic
fall drop decrease / rise increase
far distant / near close
fast / slow
fat / thin
father / mother
female / male
feminine / masculine
fill / empty drain
find / lose
first / last second third
fix repair / break
float / sink
follow / unfollow lead
for / against
forget / remember
free / paid occupied
freeze / melt thaw unfreeze
fresh / stale rotten
future / past
gain / lose
general / specific
generous / greedy selfish
get / give lose
give / take
grandma / grandpa
guest / host
guilty / innocent
happy / sad
hard firm / soft
harmful / harmless
head / tail
healthy / sick ill unhealthy
heaven / hell
heavy / light
hero / villain
hidden / visible
hide / show reveal
high tall / low short
hire / fire dismiss
horizontal / vertical
hot / cold
husband / wife
import / export
improve / worsen degrade
inbound incoming / outbound outgoing
inhale / exhale
increase raise grow / decrease
indoor / outdoor
inside in within / outside out
install / uninstall remove
intelligent clever / stupid
internal / external
introvert introverted / extrovert extroverted
invest / divest
kill / save
king / queen
known / unknown
landlord / tenant
late / early
laugh / cry
left / right
legal / illegal
lender / borrower
less fewer / more
liberal / conservative
like love enjoy / dislike hate
load / unload
local / global remote
lock / unlock
login / logout
logon / logoff
long / short
loose / tight
loosen / tighten
lossy / lossless
loud / quiet silent
love / hate
lucky / unlucky
major / minor
majority / minority
man / woman
many / few
married / single unmarried divorced
marry / divorce
master / slave
maximum maximize / minimum minimize
may might / will must never
mean / median
mention / omit
minimise / maximise
minor / adult
mount / unmount dismount
mute / unmute
natural / artificial synthetic
negative / positive
nephew / niece
new / old
noisy / quiet
none / all every
north northern / south southern
numerator / denominator
obey / disobey
offline / online
old / young
on / off
open / close shut
optimist optimistic / pessimist pessimistic
optional / required mandatory compulsory
pack / unpack
parent / child
patient / doctor impatient
pause / resume unpause
peace / war conflict
permanent / temporary
pin / unpin
plural / singular
plus / minus
polite / rude
poor / rich
possible / impossible
postpaid / prepaid
powerful strong / weak powerless
praise / criticize blame
predator / prey
presence / absence
present / past absent
prevent / cause
private / public
profit / loss
progress / regress
prove / disprove
public / private
pull / push
punish / reward
question / answer
raise / lower
read / write
reader / writer
receive / send
receiver recipient / sender
register / unregister deregister
rare rarely / common often frequently
regular / irregular
remain / leave
rent / buy own
rich / poor
right / left
rise / set fall
rough / smooth
safe / dangerous
same / different difference
save / spend waste
scalable / unscalable
sell / buy
send / receive
senior / junior
serial / parallel
sharp / blunt dull
show / hide
sibling / parent
similarity / difference
simple / complicated
single / double multiple
speed / slow
spicy / mild
stable / unstable
start / stop
static / dynamic
stay / leave
strength / weakness
strict / lenient
subscribe / unsubscribe
succeed / fail
summer / winter
sunrise / sunset
superior / inferior
sweet / bitter sour
symmetric / asymmetric
synchronous / asynchronous
take / give
teach / learn
teacher / student
tenant / landlord
thick / thin
tie / untie
to / from
together / apart
top / bottom
true / false
trust / distrust mistrust
turn / return
uncle / aunt
under below beneath / over above
underestimate / overestimate
undo / redo
union / intersection
unicast / multicast broadcast
up / down
upgrade / downgrade
upper / lower
uppercase / lowercase
upstream / downstream
valid / invalid
vertical / horizontal
victim / perpetrator
virtue / vice
visible / invisible
voluntary / involuntary
wake / sleep
war / peace
wealth / poverty
wet / dry
win / lose
winner / loser
with / without
wrap / unwrap
yes / no
young / old
zoom / unzoom
"""

_NEGATING: Final = ("un", "in", "im", "il", "ir", "dis", "de", "non", "anti", "mis", "ab", "a", "under", "over", "counter")
_SIDES: Final = ("pre", "post"), ("hyper", "hypo"), ("macro", "micro"), ("in", "ex"), ("inter", "intra"), ("up", "down"), ("over", "under")
_ENDINGS: Final = ("ful", "less"), ("less", ""), ("er", "ee"), ("or", "ee")


def _table(pairs: str) -> dict[str, frozenset[str]]:
    table: dict[str, set[str]] = {}
    for line in pairs.strip().splitlines():
        left, right = ([lemma(word) for word in side.split()] for side in line.split("/"))
        for one in left:
            for other in right:
                if one != other:
                    table.setdefault(one, set()).add(other)
                    table.setdefault(other, set()).add(one)
    return {word: frozenset(others) for word, others in table.items()}


OPPOSITES: Final = _table(_PAIRS)
"""Lemma to its opposites; symmetric."""


def opposed(one: str, other: str) -> bool:
    """The two lemmas are opposites by list, prefix or ending; symmetric."""
    return max(len(one), len(other)) <= _LONGEST and _opposed(one, other)


_LONGEST: Final = 32
"""Characters; longer ones are no words, and would fill the cache."""


@lru_cache(maxsize=16_384)
def _opposed(one: str, other: str) -> bool:
    if other in OPPOSITES.get(one, ()):
        return True
    short, long = sorted((one, other), key=lambda word: (len(word), word))
    if len(short) < 3:
        return False
    return any(long == prefix + short for prefix in _NEGATING) or _swapped(one, other)


def _swapped(one: str, other: str) -> bool:
    """The words differ in a prefix or an ending of a known pair alone."""
    fronts = (pair for left, right in _SIDES for pair in ((left, right), (right, left)))
    if any(one.startswith(left) and other.startswith(right) and one[len(left) :] == other[len(right) :] for left, right in fronts):
        return True
    backs = (pair for left, right in _ENDINGS for pair in ((left, right), (right, left)))
    return any(_same_root(one, other, left, right) for left, right in backs)


def _same_root(one: str, other: str, left: str, right: str) -> bool:
    return (
        one.endswith(left)
        and other.endswith(right)
        and len(one) - len(left) > 2
        and one[: len(one) - len(left)] == other[: len(other) - len(right)]
    )
