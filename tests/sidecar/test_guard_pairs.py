"""Pairs that the embedder finds alike: those with another answer must be refused, those with the same must pass."""

import pytest

from inference_cache_sidecar.guard.lexical import LexicalGuard

GUARD = LexicalGuard()

DIFFERENT = """
number: How do I cook rice for 4 people? | How do I cook rice for 14 people?
number: What is 1.5 times 8? | What is 15 times 8?
number: Is -5 an even number? | Is 5 an even number?
number: Book a table for two at noon | Book a table for three at noon
number: What is 20% of 300? | What is 30% of 300?
number: Name twenty-one rivers | Name twenty-two rivers
number: What happened in 1914? | What happened in 1941?
number: Who was the third president? | Who was the fourth president?
number: How far is 5 km? | How far is 50 km?
number: Transfer $1,000 to savings | Transfer $10,000 to savings
number: List 10 ideas for a party | List ideas for a party
number: Is 2.5 million a big budget? | Is 2.5 billion a big budget?
number: Tell me about World War I and World War II | Tell me about World War I and World War III
number: Can I pay in 3 instalments? | Can I pay in 6 instalments?
number: What is 7 minus 12? | What is 12 minus 7?
number: How do I divide 10 by 2? | How do I divide 2 by 10?
number: What is 5! | What is 6!
number: Does the warranty last one year? | Does the warranty last two years?
number: convert 100 to binary | convert 101 to binary
number: What is half of 90? | What is a third of 90?
unit: Is 5 mg of melatonin safe? | Is 5 g of melatonin safe?
unit: How many pages is 10 MB of text? | How many pages is 10 GB of text?
unit: Can I run 5 km in this heat? | Can I run 5 miles in this heat?
unit: Is 30 degrees Celsius hot? | Is 30 degrees Fahrenheit hot?
unit: What can I buy for $50? | What can I buy for €50?
unit: Should I wait 10 minutes? | Should I wait 10 hours?
unit: What is my height in inches? | What is my height in centimetres?
date: What is open on Monday? | What is open on Tuesday?
date: What is the weather like in June? | What is the weather like in July?
date: What should I plant in spring? | What should I plant in autumn?
date: Will it rain today? | Will it rain tomorrow?
date: Remind me at 5 am | Remind me at 5 pm
date: What did the market do last week? | What did the market do last month?
date: What are the results of 2023-01-05? | What are the results of 2023-05-01?
date: Is the office open in the morning? | Is the office open in the evening?
negation: Which foods should I eat with gout? | Which foods should I not eat with gout?
negation: Can I travel with a visa? | Can I travel without a visa?
negation: Why does my printer work? | Why doesn't my printer work?
negation: Should I always tip? | Should I never tip?
negation: Which birds can fly? | Which birds cannot fly?
negation: Show all orders | Show all orders except cancelled ones
negation: Is there a fee? | Is there no fee?
negation: What happens if I do pay the fine? | What happens if I don't pay the fine?
negation: Why is it not safe to mix bleach and ammonia? | Why is it safe to mix bleach and ammonia?
negation: Should I take the train and not the bus? | Should I take the bus and not the train?
negation: Do I need to register? | Don't I need to register unless asked?
negation: Which employees attended? | Which employees have never attended?
negation: Print the even numbers | Print everything but the even numbers
negation: It ships on Saturday, not on Friday | It ships not on Saturday, but on Friday
direction: How do I convert litres to gallons? | Please, how can I actually convert gallons to litres?
direction: Has she five brothers and two sisters? | Has she five sisters and two brothers?
opposite: How do I enable two-factor login? | How do I disable two-factor login?
opposite: What are the advantages of remote work? | What are the disadvantages of remote work?
opposite: How do I increase the font size? | How do I decrease the font size?
opposite: How can I gain weight? | How can I lose weight?
opposite: What should I do before surgery? | What should I do after surgery?
opposite: How do I lock my card? | How do I unlock my card?
opposite: Should I buy the stock? | Should I sell the stock?
opposite: How do I turn on notifications? | How do I turn off notifications?
opposite: What is the maximum file size? | What is the minimum file size?
opposite: How do I import contacts? | How do I export contacts?
opposite: What is the cheapest phone plan? | What is the most expensive phone plan?
opposite: Why is the tap water hot? | Why is the tap water cold?
opposite: How do I log in to the portal? | How do I log out of the portal?
opposite: How do I upload a file? | How do I download a file?
opposite: Is this mushroom edible? | Is this mushroom inedible?
opposite: What is an incoming call? | What is an outgoing call?
opposite: How do I install the driver? | How do I uninstall the driver?
opposite: Can I do more exercise? | Can I do less exercise?
opposite: Is it legal to park here? | Is it illegal to park here?
opposite: Is the task harmful? | Is the task harmless?
opposite: How do I zoom in? | How do I zoom out?
opposite: Who is the oldest player? | Who is the youngest player?
opposite: How do I encrypt a disk? | How do I decrypt a disk?
opposite: How do I subscribe to the list? | How do I unsubscribe from the list?
opposite: Who is the landlord of the flat? | Who is the tenant of the flat?
opposite: What are the best hotels in town? | What are the worst hotels in town?
opposite: Is she happy with it? | Is she unhappy with it?
direction: Convert USD to EUR | Convert EUR to USD
direction: How do I fly from Paris to Rome? | How do I fly from Rome to Paris?
direction: Translate this from German to English | Translate this from English to German
direction: Transfer money to my savings account | Transfer money from my savings account
direction: How do I migrate from MySQL to Postgres? | How do I migrate from Postgres to MySQL?
direction: Is iron heavier than lead? | Is lead heavier than iron?
direction: Does the cat chase the dog? | Does the dog chase the cat?
direction: Did Anna call Peter? | Did Peter call Anna?
direction: Was Anna called by Peter? | Did Anna call Peter?
direction: Should I choose tea over coffee? | Should I choose coffee over tea?
direction: How do I convert a PDF into a Word file? | How do I convert a Word file into a PDF?
direction: Can a tenant sue a landlord? | Can a landlord sue a tenant?
direction: Is Europe bigger than Africa? | Is Africa bigger than Europe?
direction: What share of nurses are women? | What share of women are nurses?
direction: Does stress cause insomnia? | Does insomnia cause stress?
direction: Who taught Plato? | Who did Plato teach?
role: If Tom and Eva met, would he like her? | If Tom and Eva met, would she like him?
role: Is he a good cook? | Is she a good cook?
role: What is your name? | What is my name?
role: Do you like me? | Do I like you?
role: Who is his boss? | Who is her boss?
identifier: What changed in v1.2.3? | What changed in v1.3.2?
identifier: What does error E1042 mean? | What does error E1024 mean?
identifier: Is SKU-1234 in stock? | Is SKU-1243 in stock?
identifier: Is CVE-2021-44228 fixed? | Is CVE-2021-45046 fixed?
identifier: What is in /etc/passwd? | What is in /etc/hosts?
identifier: Open https://a.example/x please | Open https://a.example/y please
identifier: How do I run main.py here? | How do I run test.py here?
identifier: What is C++ good for? | What is C# good for?
identifier: What colour is #ff0000? | What colour is #00ff00?
identifier: What is port 0x1F for? | What is port 0x2F for?
identifier: Write to ann@example.org | Write to bob@example.org
identifier: What does `ls -l` print? | What does `ls -a` print?
identifier: Translate "good morning" to Dutch | Translate "good evening" to Dutch
entity: What is the capital of France? | What is the capital of Spain?
entity: Is Maria Lopez a lawyer? | Is Paula Jensen a lawyer?
entity: what is the population of kenya | what is the population of ghana
entity: How do I sort a list in Python? | How do I sort a list in Java?
entity: Who founded Siemens? | Who founded Bosch?
entity: What does NATO do? | What does NASA do?
entity: Is the US bigger than China? | Is the UK bigger than China?
entity: How do I cook Turkey? | How do I cook turkey?
entity: Who is the mayor of Lyon? | Who is the mayor of Nice?
entity: Does Netflix have a free plan? | Does Spotify have a free plan?
entity: What do people say about US? | What do people say about us?
entity: Is it good weather in India? | Is it good weather?
question: How do I cancel my booking? | Why do I cancel my booking?
question: When does the museum open? | Where does the museum open?
question: How many moons does Mars have? | How big moons does Mars have?
question: Who wrote this law? | When was this law written?
question: Can I freeze cooked rice? | How can I freeze cooked rice?
question: How often should I water it? | How much should I water it?
question: Why do cats purr? | How do cats purr?
question: How long is the bridge? | How old is the bridge?
question: What is a black hole? | Where is a black hole?
tense: Is Ms Park the director? | Was Ms Park the director?
tense: Is he a pilot? | Did he use to be a pilot?
tense: Who is the head of state? | Who was the head of state?
tense: Is she a nurse? | Will she be a nurse?
qualifier: Can only members vote? | Can members vote?
qualifier: Do all birds migrate? | Do some birds migrate?
qualifier: Is she a singer or a dancer? | Is she a singer and a dancer?
qualifier: Is Bo a poet or a monk? | Is Bo simultaneously a poet and a monk?
qualifier: What is the last step? | What is the next step?
qualifier: Can I apply until May? | Can I apply in May?
content: Can I feed my parrot bread? | Can I feed my hamster bread?
content: Is John Reed an accountant? | Is John Reed an honest accountant?
content: Is that lamp broken? | Is that clock broken?
content: How do I clean leather shoes? | How do I clean suede shoes?
content: What is the price of gold? | What is the price of silver?
content: How do I become a more patient person? | How do I become a more generous person?
content: My card was stolen, what now? | My card was swallowed, what now?
content: How do I treat a burned finger? | How do I treat a cut finger?
content: How do I freeze an account? | How do I close an account?
content: Is Ann an engineer? | Is Ann becoming an engineer?
content: What is the fee for a wire transfer? | What is the limit for a wire transfer?
"""

SAME = """
wording: What is Kubernetes? | what is kubernetes
wording: What's the capital of France? | What is the capital of France?
wording: How do I reset my password? | How can I reset my password?
wording: How do I reset my password? | How to reset a password?
wording: Please tell me how I can reset my password | How do I reset my password?
wording: Could you explain what recursion is? | What is recursion?
wording: What is the best way to learn chess? | How do I learn chess?
wording: How come the sky is blue? | Why is the sky blue?
wording: What time does the shop open? | When does the store open?
wording: What is the reason for the delay? | Why the delay?
wording: Hi, what are your opening hours? | What are your opening hours?
wording: Is it possible to change my seat? | How do I change my seat?
wording: Which book should I read first? | What book should I read first?
wording: What are some good books about bees? | What are the best books about bees?
wording: Does tea have caffeine? | does tea have caffeine
synonym: How do I delete my account? | How do I remove my account?
synonym: How do I buy a ticket? | How do I purchase a ticket?
synonym: How do I fix a flat tyre? | How do I repair a flat tyre?
synonym: What does it cost to ship a parcel? | What is the price to ship a package?
synonym: How do I begin a company? | How do I start a business?
synonym: How do I sign in? | How do I log in?
synonym: What film won the prize? | What movie won the prize?
synonym: Is it difficult to learn piano? | Is it hard to learn piano?
synonym: How do I get rid of ants? | How do I remove ants?
synonym: What are the advantages of solar power? | What are the benefits of solar power?
synonym: How do I lower my bill? | How do I reduce my bill?
synonym: How do I enhance a photo? | How do I improve a picture?
inflection: What is a prime number? | What are prime numbers?
inflection: How do I train a dog? | How do I train dogs?
inflection: Why is my cat vomiting? | Why does my cat vomit?
inflection: What is the benefit of a nap? | What are the benefits of naps?
inflection: How do I organise a trip? | How do I organize a trip?
number: What are two benefits of sleep? | What are 2 benefits of sleep?
number: How much is 1,000 dollars in pounds? | How much is $1000 in pounds?
number: Is 5 kilometers far? | Is 5 km far?
number: What is twenty-five times four? | What is 25 times 4?
number: Who was the 3rd king? | Who was the third king?
number: What is 50 percent of 80? | What is 50% of 80?
number: Was World War II long? | was world war 2 long
number: What is 2 million divided by 4? | What is 2,000,000 divided by 4?
negation: Why isn't my phone charging? | Why is my phone not charging?
negation: Why can't I log in? | Why can I not log in?
negation: What shouldn't I eat? | What should I not eat?
negation: I do not see the button | I don't see the button
order: Is Ada married to Lin? | Is Lin married to Ada?
order: What is the difference between tea and coffee? | What is the difference between coffee and tea?
order: Is Kim a poet and a painter? | Is Kim a painter and a poet?
order: How do I fly from Paris to Rome? | How do I fly to Rome from Paris?
order: Did Jo paint the fence? | Was the fence painted by Jo?
order: In 2020, who won the cup? | Who won the cup in 2020?
order: Which is better, rice or pasta? | Which is better, pasta or rice?
order: How do I neutralize an acid? | How can an acid be neutralized?
order: How do I use mail as a marketing tool? | How do I use mail as a tool for marketing?
filler: Is that cat sleeping on the sofa? | Is that cat actually sleeping on the sofa?
filler: Is that cat on the sofa? | Is that cat in fact on the sofa?
filler: What exactly is inflation? | What is inflation?
filler: How can I really improve my posture? | How can I improve my posture?
case: WHAT IS THE CAPITAL OF PERU? | What is the capital of Peru?
case: how do i cook turkey | How do I cook turkey?
case: is the us larger than china | Is the US larger than China?
typo: What is the difference between a virus and a worm? | What is the differnece between a virus and a worm?
typo: How can I see who views my profile? | How ca nI see who views my profile?
typo: What are some signs of rust? | Waht are some signs of rust?
quote: What does "carpe diem" mean? | What does carpe diem mean?
foreign: Was ist die Hauptstadt von Peru? | was ist die Hauptstadt von Peru
"""


def _pairs(table: str) -> list[object]:
    rows = [row.partition(": ") for row in table.strip().splitlines()]
    return [pytest.param(*pair.split(" | "), id=f"{group}-{number}") for number, (group, _, pair) in enumerate(rows)]


@pytest.mark.parametrize(("asked", "stored"), _pairs(DIFFERENT))
def test_a_question_with_another_answer_is_refused(asked: str, stored: str) -> None:
    assert GUARD.refusal(asked, stored, 0.99) is not None
    assert GUARD.refusal(stored, asked, 0.99) is not None


@pytest.mark.parametrize(("asked", "stored"), _pairs(SAME))
def test_the_same_question_in_other_words_passes(asked: str, stored: str) -> None:
    assert GUARD.refusal(asked, stored, 0.95) is None
    assert GUARD.refusal(stored, asked, 0.95) is None
