"""Words that mean the same in a question, one set a line; the first stands for all. Lemmas only: `lemma.py` reduces words first.

Own compilation. A word belongs here only if swapping it changes no answer: "cost" and "price" do, "cheap" and "good" do not.
"""

from typing import Final

_SETS: Final = """
ability skill capability
achieve accomplish attain
advice suggestion tip recommendation guidance
afraid scared frightened fearful
aim goal objective purpose
airplane plane aeroplane aircraft
allow permit let enable
angry furious mad
apartment flat
answer reply respond response
app application
arrive reach
assist help aid
autumn fall
bad poor terrible awful horrible
beautiful pretty gorgeous lovely

begin start commence
benefit advantage pro upside merit
bicycle bike
big large huge enormous gigantic
bill invoice
boss supervisor
brave courageous
build construct
business company firm corporation
buy purchase
calculate compute
cancel annul
car automobile
change modify alter
cheap inexpensive affordable
check verify
child kid
choose select pick
clever smart intelligent
common frequent
complete finish
complicated complex
computer pc
con disadvantage drawback downside
conflict war
contain comprise
convert transform
cost price
country nation
create make produce
cure remedy
customer client
danger risk hazard
dangerous hazardous unsafe
decrease reduce lower lessen diminish
defend protect
defective broken faulty
definition meaning
delete remove erase
destroy ruin
difference distinction differ different
difficult hard tough challenging
disease illness sickness
discover find locate
dislike hate detest
doctor physician
dollar buck usd
earth world globe
effect impact influence consequence
email e-mail
employee worker staff
end terminate
enjoy like
entire whole
error mistake
incorrect wrong
essential crucial vital
estimate approximate
euro eur
exam test examination
example instance
exercise workout
expensive costly pricey
explain describe clarify
famous well-known renowned popular
fast quick rapid swift speedy
fat overweight obese
father dad daddy
favorite favourite
fix repair mend
folder directory
forbid prohibit ban
fuel gasoline petrol
funny humorous hilarious
gather collect
gift present
good great nice excellent
grandma grandmother granny
grandpa grandfather
grow cultivate
happen occur
happy glad joyful
healthy fit
hide conceal
holiday vacation
home house

idea concept notion
identify recognize
image picture photo photograph pic
immediate instant
important significant
improve enhance
include incorporate
increase raise boost
inform notify
internet web online
invent devise
job occupation profession career
journey trip
jump leap
join merge combine
kill murder
kind type sort
know understand
laptop notebook
lawyer attorney
learn study
leave depart
legal lawful
lonely alone
look appear seem
lucky fortunate
main major primary principal
maintain preserve
man guy
marry wed
maximum max maximal
meter metre
middle center centre
minimum min minimal
mobile cellphone smartphone cellular
mother mom mum mommy mama
movie film
need require
get receive obtain
novel book
obvious evident
odd strange weird unusual
offer provide
often frequently
own possess
pack package parcel
painful sore
part portion
password passcode
peaceful calm
perform conduct
person people human someone somebody individual anyone
phone telephone
pound gbp
precise accurate
prepare ready
pretend feign
previous prior
problem issue trouble
procedure process
program programme
question query
quit stop cease halt
reason cause
recent latest
refund reimburse reimbursement
refuse decline reject
relax unwind
remain stay
remember recall
rent lease
request ask
reside live
restart reboot
restroom bathroom toilet washroom
result outcome
rich wealthy
road street
rupee inr
sad unhappy sorrowful
salary wage
shop store
shut close
shy timid
similar alike same
simple easy
site website webpage
small little tiny
sofa couch
soil dirt
speak talk
speed velocity
steal rob
stone rock
story tale
stupid dumb foolish
sufficient enough
sure certain
surgery operation
surprised astonished amazed
tap faucet
teacher instructor
thin slim
think believe
throw toss
tired exhausted
total sum
translate translation
trash garbage rubbish waste
truck lorry
truth fact
ugly unattractive
uk britain
us usa america
use utilize utilise employ usage
view opinion thought
wait await
wallet purse
warn caution
way manner method technique approach
wedding marriage
win triumph
woman lady
worry concern
write author
yearly annual annually
yen jpy
"""


def _table(sets: str) -> dict[str, str]:
    return {word: line.split()[0] for line in sets.strip().splitlines() for word in line.split()}


SAME: Final = _table(_SETS)
"""Lemma to the word that stands for its set."""
